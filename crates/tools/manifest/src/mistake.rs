//! A mistake in a manifest: place, plain sentence, remedy.

use miette::{Diagnostic, LabeledSpan, NamedSource, Severity, SourceCode, SourceSpan};
use std::ops::Range;
use std::sync::Arc;

/// The text of a manifest with its name, shared by all mistakes in it.
#[derive(Clone)]
pub struct Source {
    named: Arc<NamedSource<String>>,
}

impl Source {
    /// The manifest `text` of the file `name`.
    pub fn new(name: &str, text: &str) -> Self {
        Self { named: Arc::new(NamedSource::new(name, text.to_owned()).with_language("TOML")) }
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        self.named.name()
    }

    /// The text.
    pub fn text(&self) -> &str {
        self.named.inner()
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Source({})", self.name())
    }
}

/// One mistake, or a warning.
#[derive(Clone, Debug)]
pub struct Mistake {
    code: &'static str,
    sentence: String,
    remedy: String,
    warning: bool,
    source: Source,
    span: Range<usize>,
}

impl Mistake {
    pub(crate) fn new(
        source: &Source,
        span: Range<usize>,
        code: &'static str,
        sentence: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let end = span.end.min(source.text().len());
        let span = span.start.min(end)..end;
        Self {
            code,
            sentence: sentence.into(),
            remedy: remedy.into(),
            warning: false,
            source: source.clone(),
            span,
        }
    }

    pub(crate) fn into_warning(mut self) -> Self {
        self.warning = true;
        self
    }

    /// The kind of mistake, as a short name that stays the same over releases.
    pub fn kind(&self) -> &'static str {
        self.code
    }

    /// What is wrong, as a plain sentence.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// What helps.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }

    /// Whether the manifest can be used all the same.
    pub fn is_warning(&self) -> bool {
        self.warning
    }

    /// The manifest's file name.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The line, counted from 1.
    pub fn line(&self) -> usize {
        self.before().matches('\n').count() + 1
    }

    /// The column in characters, counted from 1.
    pub fn column(&self) -> usize {
        self.before().rsplit('\n').next().unwrap_or("").chars().count() + 1
    }

    /// The piece of the manifest that is wrong.
    pub fn snippet(&self) -> &str {
        self.source.text().get(self.span.clone()).unwrap_or("")
    }

    fn before(&self) -> &str {
        self.source.text().get(..self.span.start).unwrap_or("")
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.sentence)
    }
}

impl std::error::Error for Mistake {}

impl Diagnostic for Mistake {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(if self.warning { Severity::Warning } else { Severity::Error })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(&self.remedy))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&*self.source.named)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = SourceSpan::new(self.span.start.into(), self.span.len());
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), span))))
    }
}

/// All mistakes of a manifest, in the order of their places; at least one.
#[derive(Clone, Debug)]
pub struct Mistakes {
    file: String,
    list: Vec<Mistake>,
}

impl Mistakes {
    pub(crate) fn new(source: &Source, mut list: Vec<Mistake>) -> Self {
        list.sort_by_key(|mistake| mistake.span.start);
        Self { file: source.name().to_owned(), list }
    }

    /// The mistakes.
    pub fn iter(&self) -> std::slice::Iter<'_, Mistake> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none, which does not happen in an error.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Mistakes {
    type Item = &'a Mistake;
    type IntoIter = std::slice::Iter<'a, Mistake>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.list.len() {
            1 => write!(formatter, "the manifest {} has a mistake", self.file),
            count => write!(formatter, "the manifest {} has {count} mistakes", self.file),
        }
    }
}

impl std::error::Error for Mistakes {}

impl Diagnostic for Mistakes {
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.list.iter().map(|mistake| mistake as &dyn Diagnostic)))
    }
}
