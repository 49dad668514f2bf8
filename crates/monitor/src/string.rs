//! Instructions that touch two places, one of them a device's registers: string instructions, PUSH and POP. Rare, exact, one element an
//! exit: with a repeat prefix the guest executes the instruction again for the next element.

use crate::compartment::VirtualProcessor;
use crate::fetch;
use crate::serve::{Over, Serving};
use crate::slot::Reason;
use contracts::{GuestMemory, Image, MemoryExit, Vcpu};
use decode::arithmetic::{self, Binary};
use decode::{EffectiveAddress, MemoryInstruction, Operation, Repeat, StringFunction};
use x86::{CodeSize, General, Rflags, SegmentName, Width};

/// Either what was asked for, or something else came of it, which is seen to.
type Step<T> = Result<T, Over>;

/// Carries out a string instruction, PUSH or POP.
pub fn carry_out<I: Image, M: GuestMemory, const VCPUS: usize>(
    serving: &Serving<'_, I, M, VCPUS>,
    vcpu: &mut VirtualProcessor<I>,
    access: &MemoryExit,
    instruction: &MemoryInstruction,
    code: CodeSize,
) -> Step<()> {
    let next = fetch::after(&vcpu.virt, code, instruction.length);
    let done = match instruction.operation {
        Operation::String { function, repeat, .. } => {
            element(serving, vcpu, instruction, function, repeat, next)
        }
        Operation::Push => push(serving, vcpu, instruction, next),
        Operation::Pop => pop(serving, vcpu, instruction, next),
        // Everything else has one memory operand and was carried out by the caller.
        _ => Err(serving.stop(vcpu, Reason::Instruction(access.address.get()))),
    };
    let all = done?;
    Serving::<'_, I, M, VCPUS>::element_done(vcpu, next, all);
    Ok(())
}

/// Whether an operand crosses into another page: then it is moved byte by byte.
const fn crosses(linear: u64, width: Width) -> bool {
    (linear & 0xfff) + width.bytes() as u64 > 0x1000
}

fn read<I: Image, M: GuestMemory, const VCPUS: usize>(
    serving: &Serving<'_, I, M, VCPUS>,
    vcpu: &mut VirtualProcessor<I>,
    linear: u64,
    width: Width,
) -> Step<u64> {
    if crosses(linear, width) {
        let mut value = 0;
        for byte in 0..u64::from(width.bytes()) {
            value |= read(serving, vcpu, linear.wrapping_add(byte), Width::Byte)? << (8 * byte);
        }
        return Ok(value);
    }
    let at = serving.locate(vcpu, linear, walk::Access::Read)?.address;
    let mut bytes = [0; 8];
    if let Some(part) = bytes.get_mut(..usize::from(width.bytes()))
        && serving.memory.read(at, part).is_ok()
    {
        return Ok(u64::from_le_bytes(bytes));
    }
    Ok(serving.memory_in(vcpu, at.get(), width) & width.mask())
}

fn write<I: Image, M: GuestMemory, const VCPUS: usize>(
    serving: &Serving<'_, I, M, VCPUS>,
    vcpu: &mut VirtualProcessor<I>,
    linear: u64,
    width: Width,
    value: u64,
) -> Step<()> {
    if crosses(linear, width) {
        for byte in 0..u64::from(width.bytes()) {
            write(serving, vcpu, linear.wrapping_add(byte), Width::Byte, value >> (8 * byte) & 0xff)?;
        }
        return Ok(());
    }
    let at = serving.locate(vcpu, linear, walk::Access::Write)?.address;
    let bytes = value.to_le_bytes();
    if let Some(part) = bytes.get(..usize::from(width.bytes()))
        && serving.memory.write(at, part).is_ok()
    {
        return Ok(());
    }
    serving.memory_out(vcpu, at.get(), width, value & width.mask());
    Ok(())
}

/// One element; answers whether the instruction is done.
fn element<I: Image, M: GuestMemory, const VCPUS: usize>(
    serving: &Serving<'_, I, M, VCPUS>,
    vcpu: &mut VirtualProcessor<I>,
    instruction: &MemoryInstruction,
    function: StringFunction,
    repeat: Repeat,
    next: u64,
) -> Step<bool> {
    let (width, size) = (instruction.width, instruction.address.size);
    let count = vcpu.virt.general(General::Rcx) & size.mask();
    if repeat != Repeat::Once && count == 0 {
        return Ok(true);
    }
    let backwards = vcpu.virt.flags().contains(Rflags::DIRECTION);
    let offset = |vcpu: &VirtualProcessor<I>, address: &EffectiveAddress| {
        address.offset(|register| vcpu.virt.general(register), next)
    };
    let source = match instruction.source() {
        Some(address) => {
            let at = offset(vcpu, &address);
            Some(serving.linear(vcpu, address.segment, at)?)
        }
        None => None,
    };
    let target = if function == StringFunction::Load {
        None
    } else {
        let at = offset(vcpu, &instruction.address);
        Some(serving.linear(vcpu, instruction.address.segment, at)?)
    };
    let accumulator = vcpu.virt.general(General::Rax);
    let mut flags = vcpu.virt.flags();
    match (function, source, target) {
        (StringFunction::Move, Some(source), Some(target)) => {
            let value = read(serving, vcpu, source, width)?;
            write(serving, vcpu, target, width, value)?;
        }
        (StringFunction::Store, _, Some(target)) => {
            write(serving, vcpu, target, width, accumulator & width.mask())?;
        }
        (StringFunction::Load, Some(source), _) => {
            let value = read(serving, vcpu, source, width)?;
            vcpu.virt.set_general(General::Rax, width.merge(accumulator, value));
        }
        (StringFunction::Compare, Some(source), Some(target)) => {
            let first = read(serving, vcpu, source, width)?;
            let second = read(serving, vcpu, target, width)?;
            flags = arithmetic::binary(Binary::Compare, width, first, second, flags).1;
        }
        (StringFunction::Scan, _, Some(target)) => {
            let value = read(serving, vcpu, target, width)?;
            flags = arithmetic::binary(Binary::Compare, width, accumulator & width.mask(), value, flags).1;
        }
        _ => {}
    }
    vcpu.virt.set_flags(flags);
    let mut step = |register: General, width: Width, backwards: bool| {
        let moved = decode::advance(size, vcpu.virt.general(register), width, backwards, 1);
        vcpu.virt.set_general(register, moved);
    };
    if source.is_some() {
        step(General::Rsi, width, backwards);
    }
    if target.is_some() {
        step(General::Rdi, width, backwards);
    }
    if repeat == Repeat::Once {
        return Ok(true);
    }
    step(General::Rcx, Width::Byte, true);
    Ok(count == 1
        || match repeat {
            Repeat::WhileEqual => !flags.contains(Rflags::ZERO),
            Repeat::WhileNotEqual => flags.contains(Rflags::ZERO),
            Repeat::Once | Repeat::Counted => false,
        })
}

/// The stack pointer's width: the stack segment's, or 64 bits.
fn stack_width<I: Image>(vcpu: &VirtualProcessor<I>) -> Width {
    if vcpu.virt.code_size() == CodeSize::Bits64 {
        Width::Quad
    } else if vcpu.virt.segment(SegmentName::Ss).attributes & x86::Segment::BIG != 0 {
        Width::Double
    } else {
        Width::Word
    }
}

fn push<I: Image, M: GuestMemory, const VCPUS: usize>(
    serving: &Serving<'_, I, M, VCPUS>,
    vcpu: &mut VirtualProcessor<I>,
    instruction: &MemoryInstruction,
    next: u64,
) -> Step<bool> {
    let at = instruction.offset(|register| vcpu.virt.general(register), next);
    let from = serving.linear(vcpu, instruction.address.segment, at)?;
    let value = read(serving, vcpu, from, instruction.width)?;
    let stack = stack_width(vcpu);
    let moved = decode::advance(stack, vcpu.virt.general(General::Rsp), instruction.width, true, 1);
    let top = serving.linear(vcpu, SegmentName::Ss, moved & stack.mask())?;
    write(serving, vcpu, top, instruction.width, value)?;
    vcpu.virt.set_general(General::Rsp, moved);
    Ok(true)
}

fn pop<I: Image, M: GuestMemory, const VCPUS: usize>(
    serving: &Serving<'_, I, M, VCPUS>,
    vcpu: &mut VirtualProcessor<I>,
    instruction: &MemoryInstruction,
    next: u64,
) -> Step<bool> {
    let stack = stack_width(vcpu);
    let pointer = vcpu.virt.general(General::Rsp);
    let top = serving.linear(vcpu, SegmentName::Ss, pointer & stack.mask())?;
    let value = read(serving, vcpu, top, instruction.width)?;
    let at = instruction.offset(|register| vcpu.virt.general(register), next);
    let to = serving.linear(vcpu, instruction.address.segment, at)?;
    write(serving, vcpu, to, instruction.width, value)?;
    vcpu.virt.set_general(General::Rsp, decode::advance(stack, pointer, instruction.width, false, 1));
    Ok(true)
}
