//! What a manifest says, with the place of each word. Nothing here is checked but its type and form.

use std::ops::Range;

/// A value and its place in the manifest, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// From where to where it stands.
    pub span: Range<usize>,
}

impl<T> Placed<T> {
    /// A value at a place.
    pub fn new(value: T, span: Range<usize>) -> Self {
        Self { value, span }
    }
}

/// The keys of a table: tells what was not given from what was given wrongly.
pub type Keys = std::collections::BTreeSet<String>;

/// A whole manifest. What is absent was not given, or was given wrongly, which is then a mistake of its own.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The keys that it has, rightly or wrongly.
    pub keys: Keys,
    /// `format`.
    pub format: Option<Placed<i64>>,
    /// `[[compartment]]`.
    pub compartments: Vec<Compartment>,
    /// `[[network]]`.
    pub networks: Vec<Network>,
    /// `[[channel]]`.
    pub channels: Vec<Channel>,
}

/// A `[[compartment]]`.
#[derive(Clone, Debug)]
pub struct Compartment {
    /// Its head.
    pub span: Range<usize>,
    /// The keys that it has, rightly or wrongly.
    pub keys: Keys,
    /// `name`.
    pub name: Option<Placed<String>>,
    /// `memory`, in bytes.
    pub memory: Option<Placed<u64>>,
    /// `vcpus`.
    pub vcpus: Option<Placed<i64>>,
    /// `boot`.
    pub boot: Option<Boot>,
    /// `label`.
    pub label: Option<Label>,
    /// `share`.
    pub share: Option<Placed<i64>>,
    /// `cpus`.
    pub cpus: Option<Placed<Vec<Placed<i64>>>>,
    /// `on-reset`.
    pub on_reset: Option<Placed<plan::OnReset>>,
    /// `on-unclaimed`.
    pub on_unclaimed: Option<Placed<plan::OnUnclaimed>>,
    /// `[[compartment.interface]]`.
    pub interfaces: Vec<Interface>,
}

/// `boot`.
#[derive(Clone, Debug)]
pub struct Boot {
    /// All of it.
    pub span: Range<usize>,
    /// The keys that it has, rightly or wrongly.
    pub keys: Keys,
    /// `kernel`: a file name relative to the manifest.
    pub kernel: Option<Placed<String>>,
    /// `initrd`: a file name relative to the manifest.
    pub initrd: Option<Placed<String>>,
    /// `command-line`.
    pub command_line: Option<Placed<String>>,
    /// `modules`: each a file name relative to the manifest, and arguments behind a space.
    pub modules: Vec<Placed<String>>,
    /// `protocol`.
    pub protocol: Option<Placed<crate::boot::Protocol>>,
}

/// `label`.
#[derive(Clone, Debug)]
pub struct Label {
    /// All of it.
    pub span: Range<usize>,
    /// The keys that it has, rightly or wrongly.
    pub keys: Keys,
    /// `text`.
    pub text: Option<Placed<String>>,
    /// `colour`: red, green and blue in bits 23–0.
    pub colour: Option<Placed<u32>>,
}

/// A `[[compartment.interface]]`.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its head.
    pub span: Range<usize>,
    /// `network`.
    pub network: Option<Placed<String>>,
    /// `addresses`.
    pub addresses: Vec<Placed<String>>,
    /// `allow`.
    pub allow: Vec<Grant>,
    /// `accept`.
    pub accept: Vec<Grant>,
}

/// An entry of `allow` or `accept`.
#[derive(Clone, Debug)]
pub struct Grant {
    /// All of it.
    pub span: Range<usize>,
    /// `to` or `from`: an address or a prefix.
    pub peer: Option<Placed<String>>,
    /// `udp`: ports.
    pub udp: Vec<Placed<i64>>,
    /// `tcp`: ports.
    pub tcp: Vec<Placed<i64>>,
    /// `icmp`: a kind of message.
    pub icmp: Option<Placed<String>>,
    /// `rate`: a size per second.
    pub rate: Option<Placed<String>>,
}

/// A `[[network]]`.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its head.
    pub span: Range<usize>,
    /// `name`.
    pub name: Option<Placed<String>>,
    /// `uplink`.
    pub uplink: Option<Placed<String>>,
}

/// A `[[channel]]`.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Its head.
    pub span: Range<usize>,
    /// `name`.
    pub name: Option<Placed<String>>,
    /// `from`.
    pub from: Option<Placed<String>>,
    /// `to`.
    pub to: Option<Placed<String>>,
    /// `size`, in bytes.
    pub size: Option<Placed<u64>>,
}
