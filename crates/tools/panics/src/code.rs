//! The functions of a program, what each calls, and where it panics.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, OpKind};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

use crate::Unreadable;

/// A function by its place in the list.
pub type Index = usize;

struct Function {
    start: u64,
    name: String,
    /// Who refers to it, from which address.
    callers: Vec<(Index, u64)>,
    enters_guests: bool,
}

pub struct Program {
    functions: Vec<Function>,
    panics: Vec<(u64, Index)>,
    instructions: usize,
}

impl Program {
    pub fn read(file: &object::File<'_>) -> Result<Self, Unreadable> {
        let mut names: BTreeMap<u64, String> = BTreeMap::new();
        let mut sections = Vec::new();
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let data = section.data().map_err(|error| Unreadable(format!("its code: {error}")))?;
            sections.push((section.address(), data));
            for symbol in file.symbols().filter(|symbol| symbol.section_index() == Some(section.index())) {
                let name = symbol.name().unwrap_or_default();
                // The linker's marks are no functions, and a function's own name is better than a label's.
                if !name.is_empty() && symbol.address() < section.address() + section.size() {
                    let name = format!("{:#}", rustc_demangle::demangle(name));
                    let known = names.entry(symbol.address()).or_default();
                    if known.is_empty() || symbol.size() > 0 {
                        *known = name;
                    }
                }
            }
        }
        if names.is_empty() {
            return Err(Unreadable("it has no names of functions: name the file with the symbols".into()));
        }
        let functions = names
            .into_iter()
            .map(|(start, name)| Function { start, name, callers: Vec::new(), enters_guests: false })
            .collect();
        let mut program = Self { functions, panics: Vec::new(), instructions: 0 };
        for (address, data) in sections {
            program.read_code(address, data);
        }
        program.read_pointers(file);
        for function in &mut program.functions {
            function.callers.sort_unstable();
        }
        Ok(program)
    }

    /// Decodes each function from its start to the next one's.
    fn read_code(&mut self, address: u64, data: &[u8]) {
        let end = address + data.len() as u64;
        for index in 0..self.functions.len() {
            let start = self.functions[index].start;
            if !(address..end).contains(&start) {
                continue;
            }
            let next = self.functions.get(index + 1).map_or(end, |next| next.start.min(end));
            let bytes = &data[(start - address) as usize..(next - address) as usize];
            let mut before = Code::INVALID;
            let mut instruction = Instruction::default();
            let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
            while decoder.can_decode() {
                decoder.decode_out(&mut instruction);
                self.instructions += 1;
                match instruction.code() {
                    // What the compiler sets behind an end is none.
                    Code::Ud2 if !matches!(before, Code::Int3 | Code::Ud2) => {
                        self.panics.push((instruction.ip(), index));
                    }
                    Code::Vmrunq | Code::Vmrund | Code::Vmrunw => self.functions[index].enters_guests = true,
                    _ => {}
                }
                before = instruction.code();
                for target in references(&instruction) {
                    self.refer(index, instruction.ip(), target);
                }
            }
        }
    }

    fn refer(&mut self, from: Index, at: u64, target: u64) {
        let Some(to) = self.function_from(target) else { return };
        if to != from {
            self.functions[to].callers.push((from, at));
        }
    }

    /// The function that starts there.
    fn function_from(&self, address: u64) -> Option<Index> {
        self.functions.binary_search_by_key(&address, |function| function.start).ok()
    }

    /// Pointers to functions in constants and data are told by the place that names the constant, if one does. The linker leaves
    /// no sizes of constants: the pointer itself must be named, as in a table of the linker's.
    fn read_pointers(&mut self, file: &object::File<'_>) {
        let mut tables: BTreeMap<u64, Index> = BTreeMap::new();
        for section in file.sections().filter(|section| {
            matches!(section.kind(), SectionKind::ReadOnlyData | SectionKind::Data)
                && section.address().is_multiple_of(8)
        }) {
            let data = section.data().unwrap_or_default();
            for (place, word) in (section.address()..).step_by(8).zip(data.chunks_exact(8)) {
                let word = word.try_into().map_or(0, u64::from_le_bytes);
                if let Some(index) = self.function_from(word) {
                    tables.insert(place, index);
                }
            }
        }
        for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
            let data = section.data().unwrap_or_default();
            let mut decoder = Decoder::with_ip(64, data, section.address(), DecoderOptions::NONE);
            for instruction in &mut decoder {
                for target in references(&instruction) {
                    if let Some(index) = tables.get(&target)
                        && let Some(from) = self.function_of(instruction.ip())
                        && from != *index
                    {
                        self.functions[*index].callers.push((from, instruction.ip()));
                    }
                }
            }
        }
    }

    /// The function that an address lies in.
    fn function_of(&self, address: u64) -> Option<Index> {
        self.functions.partition_point(|function| function.start <= address).checked_sub(1)
    }

    pub fn functions(&self) -> usize {
        self.functions.len()
    }

    pub fn instructions(&self) -> usize {
        self.instructions
    }

    pub fn name(&self, function: Index) -> &str {
        &self.functions[function].name
    }

    /// The places that panic or call a function of Rust's core library that does so, by rising address, with the functions that they lie in.
    pub fn panics(&self) -> Vec<(u64, Index)> {
        let mut places = Vec::new();
        let mut seen = BTreeSet::new();
        let mut left = self.panics.clone();
        while let Some((at, function)) = left.pop() {
            if !seen.insert((at, function)) {
                continue;
            }
            let Function { name, callers, .. } = &self.functions[function];
            if name.starts_with("core::") && !callers.is_empty() {
                left.extend(callers.iter().map(|(caller, place)| (*place, *caller)));
            } else {
                places.push((at, function));
            }
        }
        places.sort_unstable();
        places
    }

    /// The shortest chain of calls to the panic at `at` in `function`: from the function that enters guests where there is one, else from
    /// one that nobody calls. Each step with the address of its call; the last with the panic's own.
    pub fn chain(&self, at: u64, function: Index) -> (Vec<(Index, u64)>, bool) {
        let mut towards: BTreeMap<Index, (Index, u64)> = BTreeMap::new();
        let mut queue = VecDeque::from([function]);
        let mut order = Vec::new();
        while let Some(index) = queue.pop_front() {
            order.push(index);
            for (caller, place) in &self.functions[index].callers {
                if *caller != function && !towards.contains_key(caller) {
                    towards.insert(*caller, (index, *place));
                    queue.push_back(*caller);
                }
            }
        }
        let entering = order.iter().copied().find(|index| self.functions[*index].enters_guests);
        let uncalled = || order.iter().copied().find(|index| self.functions[*index].callers.is_empty());
        let mut index = entering.or_else(uncalled).unwrap_or(function);
        let mut chain = Vec::new();
        while let Some((next, place)) = towards.get(&index) {
            chain.push((index, *place));
            index = *next;
        }
        chain.push((function, at));
        (chain, entering.is_some())
    }
}

/// Addresses that an instruction names: where it goes, what it loads, what it loads from.
fn references(instruction: &Instruction) -> impl Iterator<Item = u64> {
    let memory = (instruction.is_ip_rel_memory_operand())
        .then(|| instruction.ip_rel_memory_address())
        .or_else(|| (instruction.memory_displ_size() >= 4).then(|| instruction.memory_displacement64()));
    let operands = (0..instruction.op_count()).filter_map(|operand| match instruction.op_kind(operand) {
        OpKind::NearBranch64 | OpKind::NearBranch32 | OpKind::NearBranch16 => {
            Some(instruction.near_branch_target())
        }
        OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 => {
            Some(instruction.immediate(operand))
        }
        _ => None,
    });
    memory.into_iter().chain(operands)
}
