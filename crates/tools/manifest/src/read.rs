//! Reads a manifest's TOML: types, forms and unknown keys. It goes on behind each mistake, so that all are found at once.

use crate::boot::Protocol;
use crate::mistake::{Mistake, Source};
use crate::model::{Boot, Channel, Compartment, Document, Grant, Interface, Keys, Label, Network, Placed};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads `source`; the document has holes where `mistakes` say why.
pub(crate) fn read(source: &Source, mistakes: &mut Vec<Mistake>) -> Document {
    let (root, errors) = DeTable::parse_recoverable(source.text());
    if !errors.is_empty() {
        // What follows a broken line was read by guessing: to judge it would only confuse.
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            mistakes.push(Mistake::new(
                source,
                span,
                "syntax",
                format!("this is no valid TOML: {}", error.message()),
                "Write each entry as `key = value`; text stands in double quotes, lists in square brackets.",
            ));
        }
        return Document::default();
    }
    let mut reader = Reader { source, mistakes };
    reader.document(root.get_ref())
}

/// The keys of a table that the format knows.
struct Known {
    what: &'static str,
    keys: &'static [&'static str],
}

const ROOT: Known = Known { what: "a manifest", keys: &["format", "compartment", "network", "channel"] };
const COMPARTMENT: Known = Known {
    what: "a compartment",
    keys: &[
        "name",
        "memory",
        "vcpus",
        "boot",
        "label",
        "share",
        "cpus",
        "on-reset",
        "on-unclaimed",
        "interface",
    ],
};
const BOOT: Known =
    Known { what: "`boot`", keys: &["kernel", "initrd", "command-line", "modules", "protocol"] };
const LABEL: Known = Known { what: "`label`", keys: &["text", "colour"] };
const INTERFACE: Known = Known { what: "an interface", keys: &["network", "addresses", "allow", "accept"] };
const ALLOW: Known = Known { what: "an entry of `allow`", keys: &["to", "udp", "tcp", "icmp", "rate"] };
const ACCEPT: Known = Known { what: "an entry of `accept`", keys: &["from", "udp", "tcp", "icmp", "rate"] };
const NETWORK: Known = Known { what: "a network", keys: &["name", "uplink"] };
const CHANNEL: Known = Known { what: "a channel", keys: &["name", "from", "to", "size"] };

struct Reader<'r> {
    source: &'r Source,
    mistakes: &'r mut Vec<Mistake>,
}

impl Reader<'_> {
    fn mistake(
        &mut self,
        span: Range<usize>,
        code: &'static str,
        sentence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.mistakes.push(Mistake::new(self.source, span, code, sentence, remedy));
    }

    fn document(&mut self, root: &DeTable<'_>) -> Document {
        self.unknown_keys(root, &ROOT);
        Document {
            keys: keys(root),
            format: self.integer(root, "format"),
            compartments: self.tables(root, "compartment", Self::compartment),
            networks: self.tables(root, "network", Self::network),
            channels: self.tables(root, "channel", Self::channel),
        }
    }

    fn compartment(&mut self, span: Range<usize>, table: &DeTable<'_>) -> Compartment {
        self.unknown_keys(table, &COMPARTMENT);
        Compartment {
            span,
            keys: keys(table),
            name: self.text(table, "name"),
            memory: self.size(table, "memory", "256 MiB"),
            vcpus: self.integer(table, "vcpus"),
            boot: self.table(table, "boot", Self::boot),
            label: self.table(table, "label", Self::label),
            share: self.integer(table, "share"),
            cpus: self.integers(table, "cpus"),
            on_reset: self.word(
                table,
                "on-reset",
                &[("restart", plan::OnReset::Restart), ("stop", plan::OnReset::Stop)],
            ),
            on_unclaimed: self.word(
                table,
                "on-unclaimed",
                &[("answer", plan::OnUnclaimed::Answer), ("stop", plan::OnUnclaimed::Stop)],
            ),
            interfaces: self.tables(table, "interface", Self::interface),
        }
    }

    fn boot(&mut self, span: Range<usize>, table: &DeTable<'_>) -> Boot {
        self.unknown_keys(table, &BOOT);
        Boot {
            span,
            keys: keys(table),
            kernel: self.text(table, "kernel"),
            initrd: self.text(table, "initrd"),
            command_line: self.text(table, "command-line"),
            modules: self.texts(table, "modules"),
            protocol: self.word(table, "protocol", &Protocol::NAMES),
        }
    }

    fn label(&mut self, span: Range<usize>, table: &DeTable<'_>) -> Label {
        self.unknown_keys(table, &LABEL);
        let colour = self.text(table, "colour").and_then(|text| {
            let colour = colour(&text.value);
            if colour.is_none() {
                self.mistake(
                    text.span.clone(),
                    "colour",
                    format!("`{}` is no colour", text.value),
                    "Write red, green and blue as six hexadecimal digits, for example \"#00a651\".",
                );
            }
            colour.map(|colour| Placed::new(colour, text.span))
        });
        Label { span, keys: keys(table), text: self.text(table, "text"), colour }
    }

    fn interface(&mut self, span: Range<usize>, table: &DeTable<'_>) -> Interface {
        self.unknown_keys(table, &INTERFACE);
        Interface {
            span,
            network: self.text(table, "network"),
            addresses: self.texts(table, "addresses"),
            allow: self.tables(table, "allow", |reader, span, table| reader.grant(span, table, &ALLOW)),
            accept: self.tables(table, "accept", |reader, span, table| reader.grant(span, table, &ACCEPT)),
        }
    }

    fn grant(&mut self, span: Range<usize>, table: &DeTable<'_>, known: &Known) -> Grant {
        self.unknown_keys(table, known);
        Grant {
            span,
            peer: self.text(table, known.keys[0]),
            udp: self.ports(table, "udp"),
            tcp: self.ports(table, "tcp"),
            icmp: self.text(table, "icmp"),
            rate: self.text(table, "rate"),
        }
    }

    fn network(&mut self, span: Range<usize>, table: &DeTable<'_>) -> Network {
        self.unknown_keys(table, &NETWORK);
        Network { span, name: self.text(table, "name"), uplink: self.text(table, "uplink") }
    }

    fn channel(&mut self, span: Range<usize>, table: &DeTable<'_>) -> Channel {
        self.unknown_keys(table, &CHANNEL);
        Channel {
            span,
            name: self.text(table, "name"),
            from: self.text(table, "from"),
            to: self.text(table, "to"),
            size: self.size(table, "size", "64 KiB"),
        }
    }

    fn unknown_keys(&mut self, table: &DeTable<'_>, known: &Known) {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if known.keys.contains(&name) {
                continue;
            }
            let list = || known.keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
            let remedy = match nearest(name, known.keys) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("The keys of {} are {}.", known.what, list()),
            };
            self.mistake(
                key.span(),
                "unknown-key",
                format!("{} has no key `{}`", known.what, printable(name)),
                remedy,
            );
        }
    }

    /// A value of the wrong type.
    fn wrong_type(&mut self, value: &Spanned<DeValue<'_>>, key: &str, wanted: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.mistake(
            value.span(),
            "wrong-type",
            format!("`{key}` is {found}, and has to be {wanted}"),
            format!("Write {}.", example(key)),
        );
    }

    fn text(&mut self, table: &DeTable<'_>, key: &str) -> Option<Placed<String>> {
        let value = get(table, key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(value, key, "a text in double quotes");
            return None;
        };
        Some(Placed::new(text.to_owned(), value.span()))
    }

    fn integer(&mut self, table: &DeTable<'_>, key: &str) -> Option<Placed<i64>> {
        let value = get(table, key)?;
        self.as_integer(value, key)
    }

    fn as_integer(&mut self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<Placed<i64>> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(value, key, "a whole number");
            return None;
        };
        // A number beyond 64 bits is out of every range that is checked later.
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX);
        Some(Placed::new(number, value.span()))
    }

    fn integers(&mut self, table: &DeTable<'_>, key: &str) -> Option<Placed<Vec<Placed<i64>>>> {
        let value = get(table, key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "a list of whole numbers");
            return None;
        };
        let list = array.iter().filter_map(|element| self.as_integer(element, key)).collect();
        Some(Placed::new(list, value.span()))
    }

    /// One port, or a list of them.
    fn ports(&mut self, table: &DeTable<'_>, key: &str) -> Vec<Placed<i64>> {
        match get(table, key) {
            Some(value) if !value.get_ref().is_array() => self.as_integer(value, key).into_iter().collect(),
            _ => self.integers(table, key).map(|list| list.value).unwrap_or_default(),
        }
    }

    fn texts(&mut self, table: &DeTable<'_>, key: &str) -> Vec<Placed<String>> {
        let Some(value) = get(table, key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "a list of texts");
            return Vec::new();
        };
        let mut list = Vec::new();
        for element in array {
            match element.get_ref().as_str() {
                Some(text) => list.push(Placed::new(text.to_owned(), element.span())),
                None => self.wrong_type(element, key, "a list of texts"),
            }
        }
        list
    }

    fn size(&mut self, table: &DeTable<'_>, key: &str, example: &str) -> Option<Placed<u64>> {
        let text = self.text(table, key)?;
        let size = crate::size::parse(&text.value);
        if let Err(why) = &size {
            self.mistake(
                text.span.clone(),
                "size",
                format!("`{}` is no size: {why}", printable(&text.value)),
                format!("Write a whole number and KiB, MiB or GiB, for example \"{example}\"."),
            );
        }
        size.ok().map(|size| Placed::new(size, text.span))
    }

    fn word<T: Copy>(&mut self, table: &DeTable<'_>, key: &str, words: &[(&str, T)]) -> Option<Placed<T>> {
        let text = self.text(table, key)?;
        let found = words.iter().find(|(word, _)| *word == text.value);
        if found.is_none() {
            let list = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(" or ");
            self.mistake(
                text.span.clone(),
                "wrong-word",
                format!("`{key}` cannot be `{}`", printable(&text.value)),
                format!("Write {list}."),
            );
        }
        found.map(|(_, value)| Placed::new(*value, text.span))
    }

    fn table<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        read: impl FnOnce(&mut Self, Range<usize>, &DeTable<'_>) -> T,
    ) -> Option<T> {
        let value = get(table, key)?;
        let Some(inner) = value.get_ref().as_table() else {
            self.wrong_type(value, key, "a table");
            return None;
        };
        Some(read(self, value.span(), inner))
    }

    fn tables<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        read: impl Fn(&mut Self, Range<usize>, &DeTable<'_>) -> T,
    ) -> Vec<T> {
        let Some(value) = get(table, key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(value, key, "a list of tables");
            return Vec::new();
        };
        let mut list = Vec::new();
        for element in array {
            match element.get_ref().as_table() {
                Some(inner) => list.push(read(self, element.span(), inner)),
                None => self.wrong_type(element, key, "a list of tables"),
            }
        }
        list
    }
}

fn keys(table: &DeTable<'_>) -> Keys {
    table.keys().map(|key| key.get_ref().as_ref().to_owned()).collect()
}

fn get<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
}

/// How an entry is written.
fn example(key: &str) -> &'static str {
    match key {
        "format" => "`format = 1`",
        "compartment" => "`[[compartment]]` above its entries",
        "network" => "`network = \"wan\"` in an interface, `[[network]]` above a network's entries",
        "channel" => "`[[channel]]` above its entries",
        "interface" => "`[[compartment.interface]]` above its entries",
        "name" => "`name = \"office\"`",
        "memory" => "`memory = \"256 MiB\"`",
        "vcpus" => "`vcpus = 2`",
        "boot" => "`boot = { kernel = \"vmlinuz\" }`",
        "label" => "`label = { text = \"OFFICE\", colour = \"#00a651\" }`",
        "share" => "`share = 100`",
        "cpus" => "`cpus = [0, 1]`",
        "on-reset" => "`on-reset = \"restart\"`",
        "on-unclaimed" => "`on-unclaimed = \"answer\"`",
        "kernel" => "`kernel = \"vmlinuz\"`",
        "initrd" => "`initrd = \"initrd.img\"`",
        "command-line" => "`command-line = \"console=ttyS0\"`",
        "modules" => "`modules = [\"file arguments\"]`",
        "protocol" => "`protocol = \"pvh\"`",
        "text" => "`text = \"OFFICE\"`",
        "colour" => "`colour = \"#00a651\"`",
        "addresses" => "`addresses = [\"10.0.2.20/24\"]`",
        "allow" => "`allow = [{ to = \"10.0.2.3\", udp = 53 }]`",
        "accept" => "`accept = [{ from = \"10.1.0.2\", tcp = 80 }]`",
        "to" => "`to = \"10.0.2.3\"` in a grant, `to = \"office\"` in a channel",
        "from" => "`from = \"10.1.0.2\"` in a grant, `from = \"banking\"` in a channel",
        "udp" => "`udp = 53`",
        "tcp" => "`tcp = [443, 8443]`",
        "icmp" => "`icmp = \"echo\"`",
        "rate" => "`rate = \"1 MiB/s\"`",
        "uplink" => "`uplink = \"nic0\"`",
        "size" => "`size = \"64 KiB\"`",
        _ => "the entry as the manifest's reference shows it",
    }
}

/// `#rrggbb` as a number.
fn colour(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('#')?;
    (digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

/// A text from outside as it can be shown on one line.
pub(crate) fn printable(text: &str) -> String {
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    if text.chars().nth(80).is_some() { shown + "…" } else { shown }
}

/// The one of `words` that is nearest to `word`, if any is near enough to be meant.
pub(crate) fn nearest<'w>(word: &str, words: &[&'w str]) -> Option<&'w str> {
    let word = word.chars().take(40).collect::<String>().to_lowercase();
    words
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate)
}

/// How many characters have to be added, removed or changed to make `left` of `right` (Levenshtein's distance).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (count, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = count + 1;
        for (index, to) in right.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[index + 1];
            row[index + 1] = changed.min(diagonal + 1).min(row[index] + 1);
        }
    }
    row[right.len()]
}
