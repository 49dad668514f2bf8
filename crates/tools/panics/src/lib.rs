//! Whether a linked image can panic at all.
//!
//! A panic of an image ends in UD2: its panic handler is that one instruction, and the compiler sets it into every place that panics or
//! into what such a place calls. It has an effect, so that the compiler cannot drop it as long as the panic can be reached. So an image
//! without UD2 has no panic: no bounds check that fails, no `unwrap`, no division by zero, whatever values a guest brings. Symbols prove
//! less, since what is inlined has none.
//!
//! Assembly that nobody comes back to ends in INT3. The compiler sets a UD2 of its own behind it; that one is no panic.

mod code;
mod source;

use std::fmt;

use code::Program;
use source::Source;

/// What was seen in an image.
#[derive(Debug)]
pub struct Findings {
    /// Functions that were read.
    pub functions: usize,
    /// Instructions that were read.
    pub instructions: usize,
    /// Panics, by rising address.
    pub panics: Vec<Panic>,
}

/// A place that panics.
#[derive(Debug)]
pub struct Panic {
    /// The address of its UD2, or of the call of the function of Rust's core library that ends in it.
    pub at: u64,
    /// The function that it lies in, before it: who calls that, and so on. The first is one that nobody calls, or the one that enters guests.
    pub callers: Vec<Caller>,
    /// Whether the first of the callers is the function that enters guests.
    pub from_run_loop: bool,
}

/// One step of a chain of calls.
#[derive(Debug)]
pub struct Caller {
    /// The function.
    pub function: String,
    /// What was inlined at the place of the call or of the panic, from the function itself to the innermost: `name (file:line)`.
    pub inlined: Vec<String>,
}

impl fmt::Display for Panic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whence = if self.from_run_loop { "from the run loop" } else { "not from the run loop by calls" };
        write!(formatter, "{:#x} panics, reached {whence}:", self.at)?;
        for (step, caller) in self.callers.iter().enumerate() {
            let word = if step == 0 { "" } else { "calls " };
            write!(formatter, "\n    {word}{}", caller.function)?;
            for frame in &caller.inlined {
                write!(formatter, "\n        in {frame}")?;
            }
        }
        Ok(())
    }
}

/// Why an image cannot be judged.
#[derive(Debug)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// Reads the bytes of an image with symbols.
pub fn examine(image: &[u8]) -> Result<Findings, Unreadable> {
    let file = object::File::parse(image).map_err(|error| Unreadable(format!("no object file: {error}")))?;
    let program = Program::read(&file)?;
    let source = Source::of(&file);
    let panics = program
        .panics()
        .into_iter()
        .map(|(at, function)| {
            let (chain, from_run_loop) = program.chain(at, function);
            let step = |(function, place)| Caller {
                function: program.name(function).to_owned(),
                inlined: source.frames(place),
            };
            Panic { at, callers: chain.into_iter().map(step).collect(), from_run_loop }
        })
        .collect();
    Ok(Findings { functions: program.functions(), instructions: program.instructions(), panics })
}
