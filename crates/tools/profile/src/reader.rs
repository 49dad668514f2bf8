//! From text to a profile's own words, each checked where it stands.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::Place;
use crate::{Catalogue, Error, FORMAT, REQUIREMENTS};

/// A file and its text, to say where a mistake is.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or is no UTF-8.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|error| {
            Error::sentence(
                format!("cannot read {}: {error}", path.display()),
                "check the name and the access rights".to_owned(),
            )
        })?;
        Ok(Self { path: path.to_path_buf(), text })
    }

    /// A mistake at `span`.
    pub fn error(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) -> Error {
        let place = Place { file: self.path.clone(), text: self.text.clone(), span };
        Error { message: message.into(), help: help.into(), place: Some(place) }
    }

    /// The text as TOML, with the place of each word.
    ///
    /// # Errors
    /// It is no TOML.
    pub fn table(&self) -> Result<Spanned<DeTable<'_>>, Error> {
        DeTable::parse(&self.text).map_err(|error| {
            self.error(error.span().unwrap_or(0..0), error.message(), "write it as TOML: key = value")
        })
    }

    /// The names of the profiles beside this file, without `.toml`.
    pub(crate) fn neighbours(&self) -> Vec<String> {
        let folder = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        fs::read_dir(folder.unwrap_or(Path::new(".")))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".toml").map(str::to_owned))
            .collect()
    }

    /// The file's name without `.toml`.
    fn stem(&self) -> Option<&str> {
        self.path.file_stem()?.to_str()
    }
}

/// "did you mean …" when one of `known` is near to `word`, else the list of them.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known = known.into_iter().collect::<Vec<_>>();
    let near = known
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match near {
        Some((_, candidate)) => format!("did you mean \"{candidate}\"?"),
        None if known.is_empty() => "there are none yet".to_owned(),
        None => format!("use one of: {}", known.join(", ")),
    }
}

const KEYS: [&str; 9] =
    ["format", "name", "summary", "inherit", "parts", "without", "limits", "bench-machines", "requires"];
const LIMIT_KEYS: [&str; 3] = ["compartments", "vcpus-per-compartment", "cpus"];

/// One file's own words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Raw {
    pub name: String,
    pub summary: String,
    pub inherit: Option<Spanned<String>>,
    pub parts: Vec<String>,
    pub without: Vec<Spanned<String>>,
    pub requires: Vec<String>,
    pub compartments: Option<u32>,
    pub vcpus_per_compartment: Option<u32>,
    pub cpus: Option<u32>,
    pub bench_machines: Option<Vec<String>>,
}

impl Raw {
    pub(crate) fn parse(source: &Source, catalogue: &Catalogue) -> Result<Self, Error> {
        let table = source.table()?;
        let reader = Reader { source };
        let mut raw = Self::default();
        let mut format = None;
        for (key, value) in table.get_ref() {
            match key.get_ref().as_ref() {
                "format" => format = Some(reader.number(value, 1..=FORMAT)?),
                "name" => {
                    raw.name = reader.text(value)?;
                    if source.stem().is_some_and(|stem| stem != raw.name) {
                        return Err(source.error(
                            value.span(),
                            format!("the profile is called \"{}\", but its file is not", raw.name),
                            "name and file name are the same word",
                        ));
                    }
                }
                "summary" => raw.summary = reader.text(value)?,
                "inherit" => raw.inherit = Some(Spanned::new(value.span(), reader.text(value)?)),
                "parts" => {
                    raw.parts = reader.plain_names(value, "part", &catalogue.names().collect::<Vec<_>>())?;
                }
                "without" => {
                    raw.without = reader.names(value, "part", &catalogue.names().collect::<Vec<_>>())?;
                }
                "requires" => {
                    let known = REQUIREMENTS.map(|requirement| requirement.name);
                    raw.requires = reader.plain_names(value, "requirement", &known)?;
                }
                "bench-machines" => {
                    let names = reader.list(value)?;
                    raw.bench_machines = Some(names.into_iter().map(Spanned::into_inner).collect());
                }
                "limits" => reader.limits(value, &mut raw)?,
                unknown => {
                    return Err(source.error(
                        key.span(),
                        format!("a profile has no key \"{unknown}\""),
                        suggestion(unknown, KEYS),
                    ));
                }
            }
        }
        let missing = |key: &str, example: &str| {
            Err(source.error(0..0, format!("the key \"{key}\" is missing"), format!("add a line: {example}")))
        };
        if format.is_none() {
            return missing("format", "format = 1");
        }
        if raw.name.is_empty() {
            return missing("name", &format!("name = {:?}", source.stem().unwrap_or("NAME")));
        }
        if raw.summary.is_empty() {
            return missing("summary", "summary = \"what it is for\"");
        }
        Ok(raw)
    }
}

/// Reads values of one file.
struct Reader<'a> {
    source: &'a Source,
}

type Value<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    fn wrong(&self, value: &Value<'_>, wanted: &str) -> Error {
        self.source.error(
            value.span(),
            format!("{wanted} is wanted here, not {}", article(value.get_ref().type_str())),
            format!("write {wanted}"),
        )
    }

    fn text(&self, value: &Value<'_>) -> Result<String, Error> {
        value.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.wrong(value, "a text in quotes"))
    }

    fn number(&self, value: &Value<'_>, range: std::ops::RangeInclusive<u32>) -> Result<u32, Error> {
        let wanted = if range.start() == range.end() {
            format!("the number {}", range.start())
        } else {
            format!("a number from {} to {}", range.start(), range.end())
        };
        let integer = value.get_ref().as_integer().ok_or_else(|| self.wrong(value, &wanted))?;
        u32::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.source.error(value.span(), format!("{wanted} is wanted here"), format!("write {wanted}"))
            })
    }

    fn list(&self, value: &Value<'_>) -> Result<Vec<Spanned<String>>, Error> {
        let array = value.get_ref().as_array().ok_or_else(|| self.wrong(value, "a list in brackets"))?;
        let mut names: Vec<Spanned<String>> = Vec::new();
        for item in array {
            let name = self.text(item)?;
            if names.iter().any(|known| *known.get_ref() == name) {
                return Err(self.source.error(
                    item.span(),
                    format!("\"{name}\" is named twice"),
                    "remove one of them",
                ));
            }
            names.push(Spanned::new(item.span(), name));
        }
        Ok(names)
    }

    fn names(&self, value: &Value<'_>, what: &str, known: &[&str]) -> Result<Vec<Spanned<String>>, Error> {
        let names = self.list(value)?;
        match names.iter().find(|name| !known.contains(&name.get_ref().as_str())) {
            Some(unknown) => Err(self.source.error(
                unknown.span(),
                format!("there is no {what} \"{}\"", unknown.get_ref()),
                suggestion(unknown.get_ref(), known.iter().copied()),
            )),
            None => Ok(names),
        }
    }

    fn plain_names(&self, value: &Value<'_>, what: &str, known: &[&str]) -> Result<Vec<String>, Error> {
        Ok(self.names(value, what, known)?.into_iter().map(Spanned::into_inner).collect())
    }

    fn limits(&self, value: &Value<'_>, raw: &mut Raw) -> Result<(), Error> {
        let table = value.get_ref().as_table().ok_or_else(|| self.wrong(value, "a table in braces"))?;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                // The boot module's format holds no more (plan::COMPARTMENTS, plan::VCPUS).
                "compartments" => raw.compartments = Some(self.number(value, 1..=16)?),
                "vcpus-per-compartment" => raw.vcpus_per_compartment = Some(self.number(value, 1..=16)?),
                "cpus" => raw.cpus = Some(self.number(value, 1..=256)?),
                unknown => {
                    return Err(self.source.error(
                        key.span(),
                        format!("there is no limit \"{unknown}\""),
                        suggestion(unknown, LIMIT_KEYS),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn article(kind: &str) -> String {
    let vowel = kind.starts_with(['a', 'e', 'i', 'o']);
    format!("{} {kind}", if vowel { "an" } else { "a" })
}
