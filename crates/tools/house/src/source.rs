//! One Rust file, seen as a flat list of tokens with positions, and the ranges in it that are tests or constants.
//!
//! Rules look at tokens and not at the syntax tree: a syntax tree does not see into the arguments of macros.

use proc_macro2::{LineColumn, Span, TokenStream, TokenTree};
use std::path::PathBuf;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A token, or an end of a group of tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// A name or a keyword.
    Word(String),
    /// One character of punctuation.
    Sign(char),
    /// A literal as it is written; also the text of a doc comment, quoted.
    Literal(String),
    /// `(`, `[`, `{`, or a space for a group without a delimiter.
    Open(char),
    /// The group's end, written as its beginning.
    Close(char),
}

impl Token {
    /// Whether it is that word.
    pub fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found == word)
    }

    /// Whether it is that character of punctuation.
    pub fn is_sign(&self, sign: char) -> bool {
        matches!(self, Self::Sign(found) if *found == sign)
    }
}

/// A token and where it begins.
#[derive(Clone, Debug)]
pub struct Located {
    /// The token.
    pub token: Token,
    /// Where it begins; lines count from 1.
    pub at: LineColumn,
}

/// What a file is for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Part of the library or the program.
    Product,
    /// Only compiled for tests, benchmarks, examples or fuzzers.
    Test,
    /// A build script, which runs on the developer's machine.
    BuildScript,
}

/// A Rust file of a crate.
#[derive(Debug)]
pub struct Source {
    /// Relative to the root of the tree.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Its tokens in order; empty if it is no Rust.
    pub tokens: Vec<Located>,
    /// Why it is no Rust: line and reason.
    pub fault: Option<(usize, String)>,
    /// Modules that are compiled for tests only and whose text lies in other files: their names or paths.
    pub test_modules: Vec<TestModule>,
    /// Ranges that are compiled for tests only.
    tests: Vec<(LineColumn, LineColumn)>,
    /// Ranges that are evaluated while compiling.
    constants: Vec<(LineColumn, LineColumn)>,
}

/// `#[cfg(test)] mod name;`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestModule {
    /// The module's name.
    pub name: String,
    /// The path of its `#[path]` attribute.
    pub path: Option<String>,
}

impl Source {
    /// Reads the text of a file.
    pub fn new(path: PathBuf, text: String, purpose: Purpose) -> Self {
        let mut source = Self {
            path,
            text,
            purpose,
            tokens: Vec::new(),
            fault: None,
            test_modules: Vec::new(),
            tests: Vec::new(),
            constants: Vec::new(),
        };
        match syn::parse_file(&source.text) {
            Ok(file) => {
                let mut ranges = Ranges::default();
                if file.attrs.iter().any(is_test_attribute) {
                    source.purpose = Purpose::Test;
                }
                ranges.visit_file(&file);
                source.tests = ranges.tests;
                source.constants = ranges.constants;
                source.test_modules = ranges.test_modules;
            }
            Err(error) => {
                source.fault = Some((error.span().start().line, error.to_string()));
                return source;
            }
        }
        // A shebang line is no token, and `parse_file` has seen whether it is one.
        let body = if source.text.starts_with("#!") && !source.text.starts_with("#![") {
            source.text.replacen("#!", "//", 1)
        } else {
            source.text.clone()
        };
        match body.parse::<TokenStream>() {
            Ok(stream) => flatten(stream, &mut source.tokens),
            Err(error) => source.fault = Some((error.span().start().line, error.to_string())),
        }
        source
    }

    /// Whether the token at `at` is compiled for tests only.
    pub fn is_test(&self, at: LineColumn) -> bool {
        self.purpose == Purpose::Test || within(&self.tests, at)
    }

    /// Whether the token at `at` is evaluated while compiling.
    pub fn is_constant(&self, at: LineColumn) -> bool {
        within(&self.constants, at)
    }

    /// Every position in the list of tokens from which `pattern` follows.
    pub fn find<'source>(&'source self, pattern: &'source [Token]) -> impl Iterator<Item = usize> + 'source {
        (0..self.tokens.len()).filter(move |&index| self.matches(index, pattern))
    }

    /// Whether `pattern` stands at that position in the list of tokens.
    pub fn matches(&self, index: usize, pattern: &[Token]) -> bool {
        self.tokens
            .get(index..index + pattern.len())
            .is_some_and(|found| found.iter().zip(pattern).all(|(found, wanted)| found.token == *wanted))
    }

    /// The tokens of the group whose opening stands at `index`, without its ends. Empty if none opens there.
    pub fn group(&self, index: usize) -> &[Located] {
        if !matches!(self.tokens.get(index).map(|located| &located.token), Some(Token::Open(_))) {
            return &[];
        }
        let mut depth = 0usize;
        for (offset, located) in self.tokens[index..].iter().enumerate() {
            match located.token {
                Token::Open(_) => depth += 1,
                Token::Close(_) => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return &self.tokens[index + 1..index + offset];
            }
        }
        &[]
    }
}

/// The word `word` as a token of a pattern.
pub fn word(word: &str) -> Token {
    Token::Word(word.to_owned())
}

fn within(ranges: &[(LineColumn, LineColumn)], at: LineColumn) -> bool {
    ranges.iter().any(|(start, end)| *start <= at && at < *end)
}

fn flatten(stream: TokenStream, into: &mut Vec<Located>) {
    for tree in stream {
        let at = tree.span().start();
        match tree {
            TokenTree::Ident(name) => into.push(Located { token: Token::Word(name.to_string()), at }),
            TokenTree::Punct(sign) => into.push(Located { token: Token::Sign(sign.as_char()), at }),
            TokenTree::Literal(literal) => {
                into.push(Located { token: Token::Literal(literal.to_string()), at });
            }
            TokenTree::Group(group) => {
                let delimiter = match group.delimiter() {
                    proc_macro2::Delimiter::Parenthesis => '(',
                    proc_macro2::Delimiter::Bracket => '[',
                    proc_macro2::Delimiter::Brace => '{',
                    proc_macro2::Delimiter::None => ' ',
                };
                into.push(Located { token: Token::Open(delimiter), at });
                flatten(group.stream(), into);
                into.push(Located { token: Token::Close(delimiter), at: group.span_close().start() });
            }
        }
    }
}

/// `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    if !attribute.path().is_ident("cfg") {
        return false;
    }
    let Ok(list) = attribute.meta.require_list() else { return false };
    let condition: String = list.tokens.to_string().split_whitespace().collect();
    condition == "test" || condition.starts_with("all(test,")
}

#[derive(Default)]
struct Ranges {
    tests: Vec<(LineColumn, LineColumn)>,
    constants: Vec<(LineColumn, LineColumn)>,
    test_modules: Vec<TestModule>,
}

fn range(span: Span) -> (LineColumn, LineColumn) {
    (span.start(), span.end())
}

impl<'ast> Visit<'ast> for Ranges {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes: &[syn::Attribute] = match item {
            syn::Item::Const(item) => {
                self.constants.push(range(item.span()));
                &item.attrs
            }
            syn::Item::Static(item) => {
                self.constants.push(range(item.span()));
                &item.attrs
            }
            syn::Item::Enum(item) => &item.attrs,
            syn::Item::ExternCrate(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::ForeignMod(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Macro(item) => &item.attrs,
            syn::Item::Mod(item) => {
                if item.content.is_none() && item.attrs.iter().any(is_test_attribute) {
                    let path = item.attrs.iter().find_map(|attribute| {
                        let value = attribute.meta.require_name_value().ok()?;
                        match (&value.value, value.path.is_ident("path")) {
                            (syn::Expr::Lit(literal), true) => match &literal.lit {
                                syn::Lit::Str(path) => Some(path.value()),
                                _ => None,
                            },
                            _ => None,
                        }
                    });
                    self.test_modules.push(TestModule { name: item.ident.to_string(), path });
                }
                &item.attrs
            }
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Trait(item) => &item.attrs,
            syn::Item::Type(item) => &item.attrs,
            syn::Item::Union(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            _ => &[],
        };
        if attributes.iter().any(is_test_attribute) {
            self.tests.push(range(item.span()));
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        if let syn::ImplItem::Const(item) = item {
            self.constants.push(range(item.span()));
        }
        let attributes: &[syn::Attribute] = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            _ => &[],
        };
        if attributes.iter().any(is_test_attribute) {
            self.tests.push(range(item.span()));
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_expr_const(&mut self, item: &'ast syn::ExprConst) {
        self.constants.push(range(item.span()));
        visit::visit_expr_const(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::new("a.rs".into(), text.into(), Purpose::Product)
    }

    #[test]
    fn tokens_inside_macros_are_seen() {
        let source = source("fn f() { outer!(a { inner!(deep) }); }");
        assert_eq!(source.find(&[word("deep")]).count(), 1);
    }

    #[test]
    fn test_code_and_product_code_are_told_apart() {
        let source = source(
            "fn a() { here(); }\n#[cfg(test)]\nmod tests {\n fn b() { here(); }\n}\n#[test]\nfn c() { here(); }\n#[cfg(not(test))]\nfn d() { here(); }",
        );
        let judged: Vec<bool> =
            source.find(&[word("here")]).map(|index| source.is_test(source.tokens[index].at)).collect();
        assert_eq!(judged, [false, true, true, false]);
    }

    #[test]
    fn constants_are_told_apart() {
        let source = source("const A: u8 = here();\nfn f() { const { here() }; here(); }");
        let judged: Vec<bool> =
            source.find(&[word("here")]).map(|index| source.is_constant(source.tokens[index].at)).collect();
        assert_eq!(judged, [true, true, false]);
    }

    #[test]
    fn a_group_ends_where_it_ends() {
        let source = source("m! { a(b(c) d) e }");
        let open = source.find(&[word("a"), Token::Open('(')]).next().unwrap() + 1;
        let words: Vec<_> = source.group(open).iter().filter(|l| matches!(l.token, Token::Word(_))).collect();
        assert_eq!(words.len(), 3);
    }

    #[test]
    fn what_is_no_rust_is_named_with_its_line() {
        assert_eq!(source("fn a() {}\nfn (").fault.unwrap().0, 2);
    }

    #[test]
    fn a_test_module_in_another_file_is_noticed() {
        let found = source("#[cfg(test)]\nmod checks;\nmod product;").test_modules;
        assert_eq!(found, [TestModule { name: "checks".into(), path: None }]);
    }
}
