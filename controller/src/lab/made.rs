//! What vnet makes in a lab's folder, by name: nothing else is ever removed from it.

use super::rundir::{LOCK, MARK};
use crate::vm::qemu::RunDirectory;
use std::{
    ffi::OsStr,
    fs::{self, FileType},
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

/// The list of the lab's processes.
pub(super) const PROCESSES: &str = "processes.json";

/// The next one, while it is written.
pub(super) const PROCESSES_NEW: &str = "processes.new";

/// The list of the lab's sockets that lie outside of its folder.
pub(super) const SOCKETS_ELSEWHERE: &str = "sockets";

/// The list of the network namespaces that were made for the lab.
pub(super) const NAMESPACES: &str = "namespaces";

/// The folder of the logs.
pub(super) const LOGS: &str = "logs";

/// Which folder of a lab is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The lab's own.
    Lab,
    /// That of its logs.
    Logs,
    /// That of one virtual machine.
    Guest,
}

/// What an entry of a folder is to us.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// A file that we made.
    Made,
    /// A folder that we made; what is in it is looked at by itself.
    Folder(Place),
    /// What says that the folder is ours and who holds it: it goes last, with the folder.
    Stays,
    /// Not ours.
    Foreign,
}

fn entry(place: Place, name: &OsStr, file_type: FileType) -> Entry {
    let (Some(name), is_folder) = (name.to_str(), file_type.is_dir()) else { return Entry::Foreign };
    match place {
        Place::Lab if is_folder && name == LOGS => Entry::Folder(Place::Logs),
        // A node's name has no dot.
        Place::Lab if is_folder && !name.contains('.') => Entry::Folder(Place::Guest),
        Place::Lab if file_type.is_file() && [LOCK, MARK].contains(&name) => Entry::Stays,
        Place::Lab
            if !is_folder && [PROCESSES, PROCESSES_NEW, SOCKETS_ELSEWHERE, NAMESPACES].contains(&name) =>
        {
            Entry::Made
        }
        Place::Lab if file_type.is_socket() && name.ends_with(".sock") => Entry::Made,
        Place::Logs if file_type.is_file() && name.ends_with(".log") => Entry::Made,
        Place::Guest if !is_folder && RunDirectory::holds(name) => Entry::Made,
        _ => Entry::Foreign,
    }
}

/// Removes what we made in a lab's folder, but not its lock, its mark and itself. What is not ours stays, and is told.
///
/// # Errors
/// Something of ours cannot be removed.
pub(super) fn remove(lab: &Path) -> io::Result<Vec<PathBuf>> {
    let mut foreign = foreign_in(lab, true)?;
    foreign.sort();
    Ok(foreign)
}

/// What is in a lab's folder and not ours, sorted.
pub(super) fn foreign(lab: &Path) -> Vec<PathBuf> {
    let mut foreign = foreign_in(lab, false).unwrap_or_default();
    foreign.sort();
    foreign
}

fn foreign_in(lab: &Path, remove: bool) -> io::Result<Vec<PathBuf>> {
    let mut foreign = Vec::new();
    for (path, what) in entries(lab, Place::Lab)? {
        match what {
            Entry::Stays => {}
            Entry::Made if remove => remove_file(&path)?,
            Entry::Made => {}
            Entry::Foreign => foreign.push(path),
            Entry::Folder(place) => {
                let before = foreign.len();
                for (path, what) in entries(&path, place)? {
                    match what {
                        Entry::Made if remove => remove_file(&path)?,
                        Entry::Made => {}
                        Entry::Stays | Entry::Folder(_) | Entry::Foreign => foreign.push(path),
                    }
                }
                if remove && foreign.len() == before {
                    fs::remove_dir(path)?;
                }
            }
        }
    }
    Ok(foreign)
}

/// Removes a file of ours. It may go by itself: whoever listens on a socket removes it when it ends.
fn remove_file(path: &Path) -> io::Result<()> {
    fs::remove_file(path)
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn entries(folder: &Path, place: Place) -> io::Result<Vec<(PathBuf, Entry)>> {
    let entries = fs::read_dir(folder)?.map(|read| {
        let read = read?;
        // That of a symbolic link is its own: none is followed.
        let what = entry(place, &read.file_name(), read.file_type()?);
        Ok((read.path(), what))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::{fs::symlink, net::UnixListener};

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn what_we_made_goes_and_what_others_put_beside_it_stays() {
        let base = tempfile::tempdir().unwrap();
        let lab = base.path();
        let ours = [
            "processes.json",
            "processes.new",
            "sockets",
            "namespaces",
            "logs/vm1.log",
            "vm1/console.log",
            "vm1/disk.qcow2",
        ];
        let foreign =
            [".ssh/id", "api.sock.txt", "logs/notes.txt", "notes", "vm2/console.log.old", "vm2/net1.sock.d"];
        for name in ours.iter().chain(&foreign).chain(&[LOCK, MARK]) {
            write(&lab.join(name));
        }
        drop(UnixListener::bind(lab.join("api.sock")).unwrap());
        drop(UnixListener::bind(lab.join("vm2/net0.sock")).unwrap());
        // What looks like a socket of ours by its name only, and a link that leads away.
        write(&lab.join("precious.sock"));
        let elsewhere = tempfile::tempdir().unwrap();
        write(&elsewhere.path().join("console.log"));
        symlink(elsewhere.path(), lab.join("vm3")).unwrap();

        let mut expected: Vec<_> =
            foreign[1..].iter().chain(&[".ssh", "precious.sock", "vm3"]).map(|name| lab.join(name)).collect();
        expected.sort();
        assert_eq!(super::foreign(lab), expected);
        assert_eq!(remove(lab).unwrap(), expected);
        assert_eq!(super::foreign(lab), expected, "nothing of theirs is gone");
        for name in ours.iter().chain(&["api.sock", "vm2/net0.sock", "vm1"]) {
            assert!(!lab.join(name).exists(), "{name}");
        }
        for name in foreign.iter().chain(&[LOCK, MARK, "precious.sock", "vm3/console.log"]) {
            assert!(lab.join(name).exists(), "{name}");
        }
    }
}
