//! Writes the archive that Linux unpacks as its first root: cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;

/// A tree of files, owned by root, whose bytes depend on nothing but what was put into it.
#[derive(Debug, Default)]
pub(super) struct Archive {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

/// File types of an inode's mode (POSIX `sys/stat.h`).
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;

impl Archive {
    /// Puts a directory, and those above it, at `path` (relative, no trailing slash).
    pub(super) fn directory(&mut self, path: &str) {
        self.parents(path);
        self.insert(path, DIRECTORY | 0o755, Vec::new());
    }

    /// Puts a file with the permission bits `mode` at `path`, and the directories above it.
    pub(super) fn file(&mut self, path: &str, mode: u32, data: impl Into<Vec<u8>>) {
        self.parents(path);
        self.insert(path, REGULAR | mode, data.into());
    }

    /// Puts a symbolic link to `target` at `path`, and the directories above it.
    pub(super) fn symlink(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.insert(path, SYMLINK | 0o777, target.as_bytes().to_vec());
    }

    /// Puts a character device at `path`, and the directories above it.
    pub(super) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.parents(path);
        let entry = Entry { mode: CHARACTER_DEVICE | 0o600, device: (major, minor), data: Vec::new() };
        self.entries.insert(path.to_owned(), entry);
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            if !self.entries.contains_key(parent) {
                self.insert(parent, DIRECTORY | 0o755, Vec::new());
            }
        }
    }

    fn insert(&mut self, path: &str, mode: u32, data: Vec<u8>) {
        self.entries.insert(path.to_owned(), Entry { mode, device: (0, 0), data });
    }

    /// The archive's bytes. Files over 4 GiB cannot be described by the format; none comes near.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Directories sort before what they hold, so the kernel can create in order.
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            emit(&mut bytes, number, path, entry);
        }
        emit(&mut bytes, 0, "TRAILER!!!", &Entry { mode: 0, device: (0, 0), data: Vec::new() });
        bytes
    }
}

/// Appends one entry: header, name and data, each padded to four bytes.
fn emit(bytes: &mut Vec<u8>, inode: usize, path: &str, entry: &Entry) {
    let Entry { mode, device: (major, minor), data } = entry;
    let (size, name) = (data.len(), path.len() + 1);
    bytes.extend_from_slice(b"070701");
    let fields = [inode, *mode as usize, 0, 0, 1, 0, size, 0, 0, *major as usize, *minor as usize, name, 0];
    for field in fields {
        bytes.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend_from_slice(data);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file("etc/a", 0o644, *b"hello");
        let bytes = archive.into_bytes();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.starts_with("07070100000001000041ed"), "the directory comes first: {text:?}");
        let file = text.find("etc/a").unwrap();
        assert_eq!(&text[file - 110..file - 110 + 6], "070701");
        assert_eq!(&text[file - 110 + 6 + 8..file - 110 + 6 + 16], "000081a4", "a regular file, 0644");
        assert_eq!(&text[file - 110 + 6 + 48..file - 110 + 6 + 56], "00000005", "its size");
        assert_eq!(&text[file + 6..file + 11], "hello", "110 + 6 bytes of header and name need no padding");
        assert_eq!(bytes.len() % 4, 0);
        assert!(text.contains("TRAILER!!!"));
    }
}
