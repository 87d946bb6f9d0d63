//! How `why` looks.

use super::render::Show;
use crate::api::why::{WhyFrame, WhyGroup, WhyKind, WhySpan, WhyView};
use std::fmt::Write;

impl Show for WhyView {
    fn table(&self) -> String {
        let mut text = String::new();
        for group in &self.groups {
            // A string takes what is written to it.
            let _ = writeln!(text, "{}", told(group));
        }
        if self.left_out > 0 {
            let _ = writeln!(text, "and {} causes more: say SRC and DST, or a shorter --last", self.left_out);
        }
        if !self.groups.iter().any(|group| group.kind.is_loss()) {
            let _ = writeln!(
                text,
                "no loss {} is recorded in the last {}; `vnet trace` says what would become of a frame now",
                self.about,
                time(self.span.asked_millis)
            );
        }
        if self.last_bits {
            let _ = writeln!(
                text,
                "of IPv6 addresses the last 32 bits are recorded and compared: it may be about others that end so"
            );
        }
        let _ = write!(text, "{}", vouched(&self.span));
        text
    }
}

/// A group: its fate, and below it what else is known.
fn told(group: &WhyGroup) -> String {
    let place = group.port.as_ref().map(|port| format!("{port}: ")).unwrap_or_default();
    let mut text = format!("{place}{}", group.fate);
    let mut line = |said: String| {
        let _ = write!(text, "\n  | {said}");
    };
    let (first, last) = (time(group.first_millis_ago), time(group.last_millis_ago));
    let times = if group.count == 1 { "once".into() } else { format!("{} times", group.count) };
    let since = if group.count == 1 { String::new() } else { format!(", first {first} ago") };
    let more = match group.more {
        0 => String::new(),
        more => format!("; {more} more were only counted"),
    };
    line(format!("{times}, {last} ago{since}{more}"));
    for WhyFrame { frame, count, decided, mend } in &group.frames {
        line(if *count == group.count { frame.clone() } else { format!("{frame} ({count} of them)") });
        if let Some(decided) = decided {
            let mend = mend.iter().map(|mend| format!("; {mend}")).collect::<String>();
            line(format!("  judged again: {decided}{mend}"));
        }
    }
    if group.frames_left_out > 0 {
        line(format!("and {} other kinds of frames", group.frames_left_out));
    }
    match (&group.said, &group.rule, group.old_epoch) {
        (_, _, Some(epoch)) if group.kind != WhyKind::Applied => {
            line(format!("decided by configuration {epoch}; the file changed since"));
        }
        (Some(said), Some(rule), _) => line(format!("{said}: {rule}")),
        _ => {}
    }
    let is_told = group.frames.iter().any(|frame| frame.mend.is_some());
    if let Some(mend) = group.mend.as_ref().filter(|_| !is_told) {
        line(format!("mend: {mend}"));
    }
    text
}

/// What the answer can vouch for.
fn vouched(span: &WhySpan) -> String {
    let held = time(span.held_millis);
    let whole = match span.since_start {
        true => format!("the recorder holds everything since the switch process started, {held} ago"),
        false => format!("the recorder holds the last {held}"),
    };
    match span.capped {
        0 => whole,
        1 => {
            format!("{whole}; one cause was capped: not each of its frames is recorded, but all are counted")
        }
        many => {
            format!(
                "{whole}; {many} causes were capped: not each of their frames is recorded, but all are counted"
            )
        }
    }
}

/// `3.2 s`, `5 min 3 s`.
fn time(millis: u64) -> String {
    match millis / 1000 {
        0..60 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
