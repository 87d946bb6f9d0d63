//! What is wrong with a file, told so that a person can mend it: stable code, place, caret, the other end, a fix.

use crate::codes::Code;
use annotate_snippets::{AnnotationKind, Group, Level as Title, Renderer, Snippet};
use serde::Serialize;
use std::fmt;
use vswitch_core::description::Origin;

/// At most this many errors are told at once; the rest are counted.
pub const MAX_ERRORS: usize = 20;

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
    /// Line and column of the first byte.
    #[serde(flatten)]
    pub origin: Origin,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The file cannot be used.
    Error,
    /// The file can be used, but may not mean what it should.
    Warning,
}

/// Another place that has to do with a problem, such as the other end of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Label {
    /// Where.
    #[serde(flatten)]
    pub span: Span,
    /// What is there.
    pub text: String,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Its stable code.
    pub code: Code,
    /// How bad it is.
    pub level: Level,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where.
    #[serde(flatten)]
    pub span: Span,
    /// Other places that have to do with it; at most [`MAX_LABELS`].
    pub labels: Vec<Label>,
    /// What to do.
    pub help: Option<String>,
}

/// At most this many other places are shown for one problem.
pub const MAX_LABELS: usize = 8;

/// A problem that was just told, to say more about; one beyond [`MAX_ERRORS`] is only counted, and takes no work.
pub(crate) struct Told<'s>(Option<&'s mut Diagnostic>);

impl Told<'_> {
    /// Shows another place.
    pub(crate) fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        if let Some(told) = self.0.as_mut().filter(|told| told.labels.len() < MAX_LABELS) {
            told.labels.push(Label { span, text: sentence(&text.into()) });
        }
        self
    }

    /// Says what to do.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        if let Some(told) = self.0.as_mut() {
            told.help = Some(sentence(&text.into()));
        }
        self
    }

    /// Says which of `known` was probably meant by `word`, if one is near; that is then the help.
    pub(crate) fn did_you_mean<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let near = if self.0.is_some() { nearest(word, known) } else { None };
        match near {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// Collects problems while a file is read and checked.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    more: usize,
}

impl Sink {
    /// Tells an error.
    pub(crate) fn error(&mut self, code: Code, span: Span, message: impl Into<String>) -> Told<'_> {
        self.tell(code, Level::Error, span, sentence(&message.into()))
    }

    /// Tells a warning.
    pub(crate) fn warning(&mut self, code: Code, span: Span, message: impl Into<String>) -> Told<'_> {
        self.tell(code, Level::Warning, span, sentence(&message.into()))
    }

    fn tell(&mut self, code: Code, level: Level, span: Span, message: String) -> Told<'_> {
        let told = Diagnostic { code, level, message, span, labels: Vec::new(), help: None };
        let list = if level == Level::Error { &mut self.errors } else { &mut self.warnings };
        if list.len() < MAX_ERRORS {
            list.push(told);
            let place = list.len() - 1;
            return Told(Some(&mut list[place]));
        }
        if level == Level::Error {
            self.more += 1;
        }
        Told(None)
    }

    /// Whether an error was told.
    pub(crate) fn failed(&self) -> bool {
        !self.errors.is_empty()
    }

    /// How many errors were told.
    pub(crate) fn count(&self) -> usize {
        self.errors.len() + self.more
    }

    /// Whether no more errors are shown.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    /// Everything that was told, in file order.
    pub(crate) fn into_report(mut self, file: &str, text: &str) -> Report {
        for told in self.errors.iter_mut().chain(&mut self.warnings) {
            told.help.get_or_insert_with(|| told.code.mend().to_owned());
        }
        self.errors.sort_by_key(|told| (told.span.start, told.code));
        self.warnings.sort_by_key(|told| (told.span.start, told.code));
        Report {
            file: file.to_owned(),
            errors: self.errors,
            warnings: self.warnings,
            more: self.more,
            text: text.to_owned(),
        }
    }
}

/// Everything that is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The file, as the user named it.
    pub file: String,
    /// The errors, in file order; at most [`MAX_ERRORS`].
    pub errors: Vec<Diagnostic>,
    /// The warnings, in file order; at most [`MAX_ERRORS`].
    pub warnings: Vec<Diagnostic>,
    /// How many errors there are besides.
    pub more: usize,
    #[serde(skip)]
    text: String,
}

impl Report {
    /// What is to be said of a file that can be used, from the warnings of [`crate::load`] and the text it was given.
    pub fn of_warnings(loaded: &crate::Loaded, text: &str) -> Self {
        Self {
            file: loaded.plan.description.file.clone(),
            errors: Vec::new(),
            warnings: loaded.warnings.clone(),
            more: 0,
            text: text.to_owned(),
        }
    }

    /// The report for a terminal: one block for each problem, then a line that counts them. Control characters of the
    /// file are shown, not sent.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let file = visible(&self.file);
        let mut out = String::new();
        for told in self.errors.iter().chain(&self.warnings) {
            out.push_str(&renderer.render(&[self.group(told, &file)]));
            out.push_str("\n\n");
        }
        out.push_str(&self.summary(&file));
        out.push('\n');
        out
    }

    fn summary(&self, file: &str) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let mut line = format!("{file}: {}", count(self.errors.len() + self.more, "error"));
        if !self.warnings.is_empty() {
            line.push_str(&format!(", {}", count(self.warnings.len(), "warning")));
        }
        if self.more > 0 {
            line.push_str(&format!(" ({} not shown)", self.more));
        }
        line
    }

    fn group<'a>(&'a self, told: &'a Diagnostic, file: &'a str) -> Group<'a> {
        let title = match told.level {
            Level::Error => Title::ERROR,
            Level::Warning => Title::WARNING,
        };
        let first = told
            .labels
            .iter()
            .map(|label| label.span)
            .fold(told.span, |a, b| if b.start < a.start { b } else { a });
        let last = told.labels.iter().map(|label| label.span.end).fold(told.span.end, usize::max);
        let start = self.text[..first.start].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[last..].find('\n').map_or(self.text.len(), |at| last + at);
        let within = |span: Span| span.start - start..span.end - start;
        let mut snippet = Snippet::source(&self.text[start..end])
            .path(file)
            .line_start(first.origin.line as usize)
            .annotation(AnnotationKind::Primary.span(within(told.span)));
        for label in &told.labels {
            snippet = snippet.annotation(AnnotationKind::Context.span(within(label.span)).label(&label.text));
        }
        let group = title.primary_title(&told.message).id(told.code.name()).element(snippet);
        match &told.help {
            Some(help) => group.element(Title::HELP.message(help)),
            None => group,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// A value of the file as it may stand in a message: short, and without characters that act on a terminal.
pub(crate) fn visible(value: &str) -> String {
    escaped(value, 80)
}

/// A message, help or label: whatever of the file came into it acts on no terminal and has a bound.
fn sentence(text: &str) -> String {
    escaped(text, 1000)
}

fn escaped(text: &str, most: usize) -> String {
    let mut out: String = text.chars().take(most).flat_map(escape).collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

/// The character itself if it is printed as one place, else its escape.
fn escape(character: char) -> impl Iterator<Item = char> {
    let acts = character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let escaped = acts.then(|| character.escape_default());
    let plain = (!acts).then_some(character);
    escaped.into_iter().flatten().chain(plain)
}

/// Which of `known` the user probably meant by `word`: at most two edits away (one for short words).
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let most = if word.chars().count() <= 4 { 1 } else { 2 };
    let near = known.into_iter().map(|k| (distance(word, k), k)).filter(|(edits, _)| *edits <= most);
    near.min_by_key(|(edits, _)| *edits).map(|(_, k)| k)
}

/// How many edits make `a` into `b`: Levenshtein's distance, in which two neighbours that change places are one edit too.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut edits = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                edits = edits.min(before[j - 1] + 1);
            }
            next.push(edits);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "ab", 2),
            ("tcp", "tcp", 0),
            ("tpc", "tcp", 1),
            ("tc", "tcp", 1),
            ("wep", "web", 1),
            ("abcd", "badc", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (edits, edits), "{a} {b}");
        }
    }
}
