//! Lines of the source, from debug information where there is any.

use std::borrow::Cow;

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use object::{Object, ObjectSection};

type Reader<'data> = EndianSlice<'data, LittleEndian>;

pub struct Source<'data>(Option<addr2line::Context<Reader<'data>>>);

impl<'data> Source<'data> {
    pub fn of(file: &object::File<'data>) -> Self {
        let load = |section: gimli::SectionId| -> Result<Reader<'data>, gimli::Error> {
            let data = file.section_by_name(section.name()).and_then(|section| section.data().ok());
            Ok(Reader::new(data.unwrap_or_default(), LittleEndian))
        };
        Self(gimli::Dwarf::load(load).and_then(addr2line::Context::from_dwarf).ok())
    }

    /// What was inlined at an address, the outermost first.
    pub fn frames(&self, address: u64) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(mut frames) =
            self.0.as_ref().and_then(|context| context.find_frames(address).skip_all_loads().ok())
        else {
            return lines;
        };
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
            let name = name.unwrap_or(Cow::Borrowed("?"));
            let name = format!("{:#}", rustc_demangle::demangle(&name));
            let place = frame.location.map_or_else(String::new, |location| {
                format!(" ({}:{})", location.file.unwrap_or("?"), location.line.unwrap_or(0))
            });
            lines.push(format!("{name}{place}"));
        }
        lines.reverse();
        lines
    }
}
