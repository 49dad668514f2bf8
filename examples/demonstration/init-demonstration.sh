#!/bin/busybox sh
# The first process of the demonstration's compartments: says hello, looks for walls that are missing, shuts down.
#
# Words on the kernel's command line steer it:
#   ringfence.name=NAME     the compartment's name, for the greeting
#   ringfence.mode=MODE     power-off (default): shut down after the checks
#                           shell:  an interactive shell on the console, shut down when it ends
#                           reset:  reset the machine after the greeting, at every boot
#                           spin:   count as fast as one processor can for some seconds, then shut down
#                           uptime: print the uptime every second for some seconds, then shut down
#   ringfence.seconds=N     for spin and uptime (default 10)

/bin/busybox mkdir -p /bin /dev /proc /sys
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null

name=compartment
mode=power-off
seconds=10
for word in $(cat /proc/cmdline); do
    case $word in
        ringfence.name=*) name=${word#*=} ;;
        ringfence.mode=*) mode=${word#*=} ;;
        ringfence.seconds=*) seconds=${word#*=} ;;
    esac
done

broken=0
fail() {
    echo "isolation: BROKEN: $*"
    broken=$((broken + 1))
}

# The memory map as the firmware gave it, before the kernel took its share: sums in bytes, and the end of the RAM.
ram=0
reserved=0
end=0
for entry in /sys/firmware/memmap/*; do
    first=$(cat "$entry/start")
    last=$(cat "$entry/end")
    length=$((last - first + 1))
    if [ "$(cat "$entry/type")" = "System RAM" ]; then
        ram=$((ram + length))
        if [ $((last + 1)) -gt "$end" ]; then end=$((last + 1)); fi
    else
        reserved=$((reserved + length))
    fi
done
mebibytes=$(((ram + 1048575) / 1048576))

echo "Hello from $name: Linux $(uname -r), $(nproc) processors, $mebibytes MiB"

case $mode in
    reset)
        reboot -f
        ;;
    spin)
        # /proc/uptime is read once in 10000 rounds, so that nearly all of the time goes into counting.
        rounds=0
        stop=$(($(cut -d. -f1 /proc/uptime) + seconds))
        while [ "$(cut -d. -f1 /proc/uptime)" -lt "$stop" ]; do
            round=0
            while [ $round -lt 10000 ]; do round=$((round + 1)); done
            rounds=$((rounds + round))
        done
        echo "spin: $rounds rounds in $seconds s"
        poweroff -f
        ;;
    uptime)
        second=0
        while [ $second -lt "$seconds" ]; do
            echo "uptime: $(cut -d' ' -f1 /proc/uptime) s"
            sleep 1
            second=$((second + 1))
        done
        poweroff -f
        ;;
esac

echo "processors: $(nproc)"

# What is not there: networks, devices on the PCI bus, memory.
interfaces=$(ls /sys/class/net | tr '\n' ' ')
if [ "$interfaces" = "lo " ]; then
    echo "isolation: no network: the only interface is lo"
else
    fail "network interfaces: $interfaces"
fi

devices=0
for device in /sys/bus/pci/devices/*; do
    [ -e "$device/class" ] || continue
    if [ "$(cat "$device/class")" = "0x060000" ]; then continue; fi
    devices=$((devices + 1))
    fail "PCI device ${device##*/}, class $(cat "$device/class")"
done
if [ $devices = 0 ]; then echo "isolation: no device on the PCI bus but its bridge"; fi

disks=$(ls /sys/block | tr '\n' ' ')
if [ -z "$disks" ]; then echo "isolation: no disk"; else fail "disks: $disks"; fi

echo "isolation: the memory map has $((ram / 1024)) KiB of RAM and $((reserved / 1024)) KiB of firmware, together $(((ram + reserved) / 1048576)) MiB"

# Behind its own memory, and where a neighbour's would be if memory was shared, reads find nothing: all ones.
probed=0
for address in $end $((end + 2097152)) $((end * 2)) $((end * 3)) 1073741824 2147483648 4294967296 8589934592; do
    if [ "$address" -lt "$end" ]; then continue; fi
    value=$(devmem "$address" 32 2>&1)
    if [ "$value" = 0xFFFFFFFF ]; then
        probed=$((probed + 1))
    else
        fail "physical address $(printf '0x%x' "$address") reads $value"
    fi
done
echo "isolation: $probed physical addresses beyond its memory read as nothing, from $(printf '0x%x' "$end") on"

# Time: the kernel's clock against the real-time clock, from tick to tick. Centiseconds, since a shell has no fractions.
centiseconds() {
    read -r now _ </proc/uptime
    echo "${now%.*}${now#*.}"
}
clock=/sys/class/rtc/rtc0/since_epoch
if [ -e $clock ]; then
    wait_tick() {
        before=$(cat $clock)
        while [ "$(cat $clock)" = "$before" ]; do usleep 5000; done
    }
    wait_tick
    begin=$(centiseconds)
    wait_tick
    wait_tick
    lasted=$(($(centiseconds) - begin))
    echo "time: 2 s of the real-time clock lasted $lasted hundredths of a second"
    if [ $lasted -lt 190 ] || [ $lasted -gt 210 ]; then
        echo "time: WRONG: the clocks disagree"
        broken=$((broken + 1))
    fi
else
    echo "time: WRONG: no real-time clock"
    broken=$((broken + 1))
fi
echo "time: clock source $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
complaint=$(dmesg | grep -iE 'tsc.*unstable|clocksource.*unstable|calibration failed' | head -n 1)
if [ -n "$complaint" ]; then
    echo "time: WRONG: the kernel complains: $complaint"
    broken=$((broken + 1))
fi

if [ $broken = 0 ]; then echo "$name: all checks hold"; else echo "$name: $broken checks FAILED"; fi

if [ "$mode" = shell ]; then
    echo "A shell in $name; \`exit\` or \`poweroff -f\` shuts down."
    PS1="$name# " setsid cttyhack sh
fi
poweroff -f
