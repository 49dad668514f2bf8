//! A machine in small: processors that do with the scheduler what the monitor does, vCPUs that compute, sleep, wait for mail and
//! spin, and kicks that take a while. Time jumps from event to event. What must hold at all times is asserted on the way.

use contracts::{CpuIndex, HostTime, Leave, Scheduler, Turn, VcpuName};
use schedule_shared::ScheduleShared;

/// Ticks in a millisecond.
pub const MILLISECOND: u64 = 1_000_000;
/// Ticks in a slice.
pub const SLICE: u64 = 6 * MILLISECOND;

/// How a vCPU spends its life.
#[derive(Copy, Clone, Debug)]
pub enum Life {
    /// It computes for ever.
    Compute,
    /// It computes for about so many ticks, then sleeps for about so many by its own timer.
    Sleep(u64, u64),
    /// It computes for about so many ticks, then halts until mail comes, which somebody sends about every so many ticks.
    Mail(u64, u64),
    /// It spins for about so many ticks, then yields.
    Yield(u64),
}

/// A vCPU to be.
#[derive(Copy, Clone, Debug)]
pub struct Guest {
    pub weight: u32,
    pub pinned: Option<u8>,
    pub life: Life,
}

/// What the test knows of a vCPU.
#[derive(Clone, Debug)]
pub struct Vcpu {
    guest: Guest,
    name: VcpuName,
    /// Ticks that it had a processor.
    pub ran: u64,
    /// Ticks until it does what follows in its life.
    left: u64,
    running: bool,
    /// Where it ran last.
    last: usize,
    /// Since when it wants a processor.
    pub ready_since: Option<u64>,
    wake_at: Option<u64>,
    /// Mail that it did not take yet, and since when.
    mail: Option<u64>,
    /// A run without a reason is due: a wake came while it ran.
    excused: bool,
    next_mail: Option<u64>,
    /// The longest that it wanted a processor and had none.
    pub longest_wait: u64,
    /// The longest that mail lay in its box while it was not running.
    pub longest_mail: u64,
}

#[derive(Clone, Debug)]
struct Cpu {
    running: Option<usize>,
    /// It waits for `until` or a kick.
    idle: bool,
    until: Option<u64>,
    kick_at: Option<u64>,
}

pub struct Machine<const VCPUS: usize> {
    scheduler: ScheduleShared<VCPUS>,
    cpus: Vec<Cpu>,
    pub vcpus: Vec<Vcpu>,
    pub now: u64,
    random: u64,
    /// Ticks that a kick takes at most.
    latency: u64,
    pub turns: u64,
}

const FOREVER: u64 = u64::MAX;

impl<const VCPUS: usize> Machine<VCPUS> {
    pub fn new(cpus: u8, latency: u64, seed: u64) -> Self {
        let scheduler = ScheduleShared::new(cpus);
        scheduler.calibrate(1_000_000);
        let cpu = Cpu { running: None, idle: false, until: None, kick_at: None };
        Self {
            scheduler,
            cpus: vec![cpu; usize::from(cpus)],
            vcpus: Vec::new(),
            now: 0,
            random: seed | 1,
            latency,
            turns: 0,
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        if below == 0 { 0 } else { self.random % below }
    }

    /// Half as much to half as much again.
    fn about(&mut self, ticks: u64) -> u64 {
        ticks / 2 + self.random(ticks.max(1)) + 1
    }

    /// Adds a vCPU that runs from now on: woken, as a compartment's first vCPU is by its start.
    pub fn add(&mut self, guest: Guest) -> usize {
        let index = self.admit(guest);
        self.post(index);
        index
    }

    /// Adds a vCPU that waits for mail.
    pub fn admit(&mut self, guest: Guest) -> usize {
        let index = self.vcpus.len();
        let name = VcpuName { compartment: (index / 4) as u8, vcpu: (index % 4) as u8 };
        assert!(self.scheduler.admit(name, guest.weight, guest.pinned.map(CpuIndex)));
        let left = self.stretch(guest.life);
        let next_mail = match guest.life {
            Life::Mail(_, period) => Some(self.now + self.about(period)),
            _ => None,
        };
        self.vcpus.push(Vcpu {
            guest,
            name,
            ran: 0,
            left,
            running: false,
            last: 0,
            ready_since: None,
            wake_at: None,
            mail: None,
            excused: false,
            next_mail,
            longest_wait: 0,
            longest_mail: 0,
        });
        index
    }

    /// Ends a vCPU's life and begins it anew, as a restart of its compartment does.
    pub fn restart(&mut self, index: usize) -> bool {
        let vcpu = &self.vcpus[index];
        if vcpu.running {
            return false;
        }
        let (name, guest) = (vcpu.name, vcpu.guest);
        self.scheduler.retire(name);
        assert!(self.scheduler.admit(name, guest.weight, guest.pinned.map(CpuIndex)));
        let left = self.stretch(guest.life);
        let vcpu = &mut self.vcpus[index];
        (vcpu.left, vcpu.ready_since, vcpu.wake_at, vcpu.mail, vcpu.excused) =
            (left, None, None, None, false);
        self.post(index);
        true
    }

    fn stretch(&mut self, life: Life) -> u64 {
        match life {
            Life::Compute => FOREVER,
            Life::Sleep(ticks, _) | Life::Mail(ticks, _) | Life::Yield(ticks) => self.about(ticks),
        }
    }

    fn allowed(&self, vcpu: usize, cpu: usize) -> bool {
        self.vcpus[vcpu].guest.pinned.is_none_or(|pinned| usize::from(pinned) == cpu)
    }

    fn kick(&mut self, cpu: usize) {
        let latency = self.latency;
        let at = self.now + self.random(latency);
        let kick_at = &mut self.cpus[cpu].kick_at;
        *kick_at = Some(kick_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Puts mail into a box, as any processor or device may.
    pub fn post(&mut self, index: usize) {
        let now = self.now;
        let vcpu = &mut self.vcpus[index];
        vcpu.mail.get_or_insert(now);
        if vcpu.running {
            vcpu.excused = true;
        } else {
            vcpu.wake_at = None;
            vcpu.ready_since.get_or_insert(now);
        }
        let (name, running) = (vcpu.name, vcpu.running);
        let answer = self.scheduler.wake(name, HostTime(now));
        if running {
            let cpu = self.cpus.iter().position(|cpu| cpu.running == Some(index));
            assert_eq!(answer.map(|cpu| usize::from(cpu.0)), cpu, "who runs it has to notice");
        }
        if let Some(cpu) = answer {
            assert!(self.allowed(index, usize::from(cpu.0)), "a processor that may not run it");
            self.kick(usize::from(cpu.0));
        }
    }

    fn take_mail(&mut self, index: usize) {
        let now = self.now;
        let vcpu = &mut self.vcpus[index];
        if let Some(since) = vcpu.mail.take() {
            vcpu.longest_mail = vcpu.longest_mail.max(now - since);
        }
    }

    fn leave(&mut self, cpu: usize, index: usize, why: Leave) {
        self.scheduler.leave(CpuIndex(cpu as u8), self.vcpus[index].name, HostTime(self.now), why);
        self.cpus[cpu].running = None;
        let now = self.now;
        let vcpu = &mut self.vcpus[index];
        vcpu.running = false;
        match why {
            Leave::Halted { wake_at } if !vcpu.excused => {
                vcpu.wake_at = wake_at.map(|time| time.0);
                vcpu.ready_since = wake_at.filter(|time| time.0 <= now).map(|time| time.0);
            }
            _ => vcpu.ready_since = Some(now),
        }
    }

    /// What a processor does that was interrupted, or whose vCPU came to the end of a stretch. True if it did anything.
    fn serve(&mut self, cpu: usize) -> bool {
        let kicked = self.cpus[cpu].kick_at.is_some_and(|at| at <= self.now);
        if kicked {
            self.cpus[cpu].kick_at = None;
        }
        let due = self.cpus[cpu].until.is_some_and(|until| until <= self.now);
        if let Some(index) = self.cpus[cpu].running {
            if kicked {
                self.take_mail(index);
            }
            if due || (kicked && self.scheduler.contended(CpuIndex(cpu as u8))) {
                self.leave(cpu, index, Leave::Preempted);
            } else if self.vcpus[index].left == 0 {
                self.stretch_ends(cpu, index);
            } else {
                return kicked;
            }
        } else if self.cpus[cpu].idle && !kicked && !due {
            return false;
        }
        self.turn(cpu);
        true
    }

    fn stretch_ends(&mut self, cpu: usize, index: usize) {
        let life = self.vcpus[index].guest.life;
        self.vcpus[index].left = self.stretch(life);
        let why = match life {
            Life::Compute => Leave::Preempted,
            Life::Yield(_) => Leave::Yielded,
            Life::Sleep(_, ticks) => Leave::Halted { wake_at: Some(HostTime(self.now + self.about(ticks))) },
            Life::Mail(..) => Leave::Halted { wake_at: None },
        };
        if matches!(why, Leave::Halted { .. }) {
            // The last look at the mailbox. Mail that comes after it, but before the halt is said, must not be lost.
            self.take_mail(index);
            if self.random(3) == 0 {
                self.post(index);
            }
        }
        self.leave(cpu, index, why);
    }

    fn turn(&mut self, cpu: usize) {
        self.turns += 1;
        let now = self.now;
        for vcpu in &mut self.vcpus {
            if !vcpu.running
                && let Some(time) = vcpu.wake_at.filter(|time| *time <= now)
            {
                vcpu.ready_since.get_or_insert(time);
            }
        }
        let turn = self.scheduler.next(CpuIndex(cpu as u8), HostTime(now));
        if let Some(other) = self.scheduler.hand_over(CpuIndex(cpu as u8)) {
            assert_ne!(usize::from(other.0), cpu, "it need not kick itself");
            self.kick(usize::from(other.0));
        }
        match turn {
            Turn::Idle { until } => {
                let forgotten = (0..self.vcpus.len()).find(|index| {
                    let vcpu = &self.vcpus[*index];
                    !vcpu.running && vcpu.ready_since.is_some() && self.allowed(*index, cpu)
                });
                assert_eq!(forgotten, None, "it idles though that one is ready");
                self.cpus[cpu].idle = true;
                self.cpus[cpu].until = until.map(|time| time.0);
            }
            Turn::Run { vcpu: name, until } => {
                let index = self.vcpus.iter().position(|vcpu| vcpu.name == name).unwrap();
                assert!(self.allowed(index, cpu), "{name:?} is pinned elsewhere");
                let vcpu = &mut self.vcpus[index];
                assert!(!vcpu.running, "{name:?} runs elsewhere");
                let since = vcpu.ready_since.take();
                assert!(since.is_some() || vcpu.excused, "{name:?} is not ready");
                vcpu.longest_wait = vcpu.longest_wait.max(now - since.unwrap_or(now));
                (vcpu.running, vcpu.excused, vcpu.wake_at) = (true, false, None);
                vcpu.last = cpu;
                self.take_mail(index);
                let processor = &mut self.cpus[cpu];
                (processor.running, processor.idle) = (Some(index), false);
                processor.until = until.map(|time| time.0);
            }
        }
    }

    /// With no kick under way, nobody who is ready waits beside a processor that idles, a processor that others wait for has an end
    /// of its turn ahead, and a sleeper's last processor is armed for its timer.
    fn check(&self) {
        if self.cpus.iter().any(|cpu| cpu.kick_at.is_some()) {
            return;
        }
        for (index, vcpu) in self.vcpus.iter().enumerate() {
            if let Some(time) = vcpu.wake_at.filter(|time| !vcpu.running && *time > self.now) {
                let until = self.cpus[vcpu.last].until;
                assert!(until.is_some_and(|until| until <= time), "nobody looks after the timer of {index}");
            }
            if vcpu.running || vcpu.ready_since.is_none() {
                continue;
            }
            for (number, cpu) in
                self.cpus.iter().enumerate().filter(|(number, _)| self.allowed(index, *number))
            {
                assert!(cpu.running.is_some(), "processor {number} idles while {index} is ready");
                assert!(
                    cpu.until.is_some_and(|until| until <= self.now + SLICE),
                    "processor {number} has no end of its turn while {index} is ready"
                );
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, ticks: u64) {
        let end = self.now + ticks;
        loop {
            // All that happens now, in an order that differs from time to time.
            loop {
                let first = self.random(self.cpus.len() as u64) as usize;
                let mut quiet = true;
                for offset in 0..self.cpus.len() {
                    let cpu = (first + offset) % self.cpus.len();
                    quiet &= !self.serve(cpu);
                }
                if quiet {
                    break;
                }
            }
            self.check();
            if self.now >= end {
                break;
            }
            let mut next = end;
            for cpu in &self.cpus {
                next = next.min(cpu.until.unwrap_or(FOREVER)).min(cpu.kick_at.unwrap_or(FOREVER));
                if let Some(index) = cpu.running {
                    next = next.min(self.now.saturating_add(self.vcpus[index].left));
                }
            }
            for vcpu in &self.vcpus {
                next = next.min(vcpu.next_mail.unwrap_or(FOREVER));
            }
            let passed = next - self.now;
            for cpu in &self.cpus {
                if let Some(index) = cpu.running {
                    let vcpu = &mut self.vcpus[index];
                    vcpu.ran += passed;
                    if vcpu.left != FOREVER {
                        vcpu.left -= passed;
                    }
                }
            }
            self.now = next;
            for index in 0..self.vcpus.len() {
                if let (Some(at), Life::Mail(_, period)) =
                    (self.vcpus[index].next_mail, self.vcpus[index].guest.life)
                    && at <= self.now
                {
                    let delay = self.about(period);
                    self.vcpus[index].next_mail = Some(self.now + delay);
                    self.post(index);
                }
            }
        }
        // Whoever waits still has waited that long.
        for vcpu in &mut self.vcpus {
            if let Some(since) = vcpu.ready_since.filter(|_| !vcpu.running) {
                vcpu.longest_wait = vcpu.longest_wait.max(self.now - since);
            }
        }
    }
}
