//! The verbs about this machine: `doctor`, `image`, `init`.

use super::{
    args::{Format, ImageVerb},
    out,
    render::{self, Show},
};
use crate::{
    doctor::{self, Row, State},
    failure::{Context, Exit, Failure},
    image::{self, Image, ImageError, Name},
};
use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::Path,
};

/// What `init` writes.
const STARTER: &str = include_str!("starter.vnet.yaml");

impl Show for Vec<Row> {
    fn table(&self) -> String {
        let mut text = String::new();
        for row in self {
            let state = match row.state {
                State::Ok => "ok      ",
                State::Degraded => "degraded",
                State::Missing => "missing ",
            };
            text.push_str(&format!("{state}  {}: {}\n", row.name, row.detail));
            if let Some(mend) = &row.mend {
                text.push_str(&format!("            mend: {mend}\n"));
            }
        }
        text.trim_end().into()
    }
}

/// Lists what this machine lacks. Exit code 5 if something is missing.
pub(super) fn doctor(format: Format) -> Result<Exit, Failure> {
    let rows = doctor::judge(&doctor::probe());
    render::print(&rows, format)?;
    let missing = rows.iter().any(|row| row.state == State::Missing);
    Ok(if missing { Exit::Lacking } else { Exit::Done })
}

/// Builds, lists or removes guest images.
pub(super) fn image(what: ImageVerb) -> Result<(), Failure> {
    match what {
        ImageVerb::List { output } => render::print(&image::list().map_err(failure)?, output.format),
        ImageVerb::Build { name } => {
            let known = Name::parse(&name).ok_or_else(|| {
                Failure::invalid("no-such-image", format!("there is no image `{name}`"))
                    .mend(format!("there are: {}", Name::ALL.map(Name::as_str).join(", ")))
            })?;
            let built = image::build(known, &mut |step| out::note(step)).map_err(failure)?;
            out::say(format_args!("{}", built.folder.display()));
            Ok(())
        }
        ImageVerb::Rm { name } => {
            for removed in image::remove(&name).map_err(failure)? {
                out::say(format_args!("removed {}", removed.folder.display()));
            }
            Ok(())
        }
    }
}

impl Show for Vec<Image> {
    fn table(&self) -> String {
        if self.is_empty() {
            return "no images; build one: vnet image build debian".into();
        }
        let rows = self.iter().map(|image| {
            let mib = image.manifest.bytes >> 20;
            format!(
                "{}  {}  {mib} MiB\n  kernel {}\n  initrd {}",
                image.manifest.name,
                image.manifest.kernel,
                image.kernel().display(),
                image.initrd().display()
            )
        });
        rows.collect::<Vec<_>>().join("\n")
    }
}

fn failure(why: ImageError) -> Failure {
    if let ImageError::NotCached(_) = why {
        return Failure::invalid("no-such-image", why);
    }
    if why.is_missing() { Failure::lacking("image", why) } else { Failure::failed("image", why) }
}

/// Writes a topology file to start from, and the schema that editors complete it with beside it.
pub(super) fn init(path: &Path) -> Result<(), Failure> {
    write_new(path, STARTER)?;
    let schema = path.with_file_name("vnet.schema.json");
    let text = serde_json::to_string_pretty(&topology::schema()).context("json", || "the schema".into())?;
    // The same schema may be there already, from another file of this folder.
    if !schema.exists() {
        write_new(&schema, &text)?;
    }
    out::say(format_args!("{} is there; try: vnet test {}", path.display(), path.display()));
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(|why| {
        let failure = Failure::invalid("init", format!("{}: {why}", path.display()));
        match why.kind() {
            ErrorKind::AlreadyExists => failure.mend("nothing is overwritten: give another name"),
            _ => failure,
        }
    })?;
    file.write_all(text.as_bytes()).context("init", || path.display().to_string())
}
