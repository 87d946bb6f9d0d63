//! Guest images: a Linux kernel and an initramfs with what a lab's guest needs, built once and cached.
//!
//! [`ensure`] is what `up` calls, [`build`] what `vnet image build` calls. Neither needs rights; only a first build needs
//! the network, by the machine's own package sources.

mod apt;
mod assemble;
mod cache;
mod cpio;
mod modules;
mod tool;

pub(crate) use assemble::AGENT;

use serde::{Deserialize, Serialize};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// The images that can be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Debian's cloud kernel with busybox, iperf3, ethtool, nft and the probe agent.
    Debian,
    /// The same with Debian's kernel for all machines, and drivers for emulated network cards.
    DebianGeneric,
}

impl Name {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Debian, Self::DebianGeneric];

    /// The image called `name` in a topology file; none if there is no such image.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == name)
    }

    /// Its name in a topology file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::DebianGeneric => "debian-generic",
        }
    }
}

/// An image in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Its folder.
    pub folder: PathBuf,
    /// What it is made of.
    pub manifest: Manifest,
}

impl Image {
    /// The kernel (bzImage).
    pub fn kernel(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The initramfs.
    pub fn initrd(&self) -> PathBuf {
        self.folder.join("initrd")
    }
}

/// What an image is made of: `manifest.json` in its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Its name in a topology file.
    pub name: String,
    /// The kernel's release, as `uname -r` says it.
    pub kernel: String,
    /// Hash of what this program puts into it: the recipe, the guest's scripts and the agent, in hexadecimal digits.
    pub recipe: String,
    /// The packages it was made from: `NAME_VERSION_ARCHITECTURE.deb`.
    pub packages: Vec<String>,
    /// Bytes of kernel and initramfs together.
    pub bytes: u64,
}

/// A step of a build that begins now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Another process builds the same image: this one waits for it.
    Waiting,
    /// Package lists are fetched.
    Lists,
    /// Packages are fetched and unpacked: this many.
    Packages(usize),
    /// The initramfs is put together.
    Assembling,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("another process builds this image: waiting for it"),
            Self::Lists => f.write_str("fetching package lists"),
            Self::Packages(count) => write!(f, "fetching and unpacking {count} packages"),
            Self::Assembling => f.write_str("putting the initramfs together"),
        }
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// This machine lacks a program.
    #[error("`{0}` is not on this machine, and building an image needs it; {GIVE_YOUR_OWN}")]
    NoTool(String),
    /// A program failed.
    #[error("`{program}` failed ({said}); {GIVE_YOUR_OWN}")]
    Tool {
        /// The program.
        program: String,
        /// How it ended, and the last lines it said.
        said: String,
    },
    /// The kernel package has no such module.
    #[error("the kernel package has no module `{0}`; {GIVE_YOUR_OWN}")]
    NoModule(String),
    /// A package holds something else than was expected.
    #[error("the downloaded packages have no {0}; {GIVE_YOUR_OWN}")]
    NotInPackages(String),
    /// The cache folder cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is nowhere to keep images.
    #[error(
        "neither XDG_CACHE_HOME nor HOME is set: set one of them to an absolute path, images are kept there"
    )]
    NoCache,
    /// No image in the cache has this name.
    #[error("there is no image `{0}` in the cache; `vnet image list` shows what there is")]
    NotCached(String),
}

/// The way out when this machine cannot build.
const GIVE_YOUR_OWN: &str = "without it, give the node `kernel: PATH` and `initrd: PATH` of a guest of your own in place of `image: debian`";

impl ImageError {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    /// True if this machine lacks something that building needs (exit code 5).
    pub const fn is_missing(&self) -> bool {
        !matches!(self, Self::Io { .. } | Self::NotCached(_))
    }
}

/// The image `name` from the cache, built first if it is not there.
pub fn ensure(name: Name, progress: &mut dyn FnMut(Progress)) -> Result<Image, ImageError> {
    cache::Cache::open()?.ensure(name, progress)
}

/// Builds the image `name` from the newest packages; an equal one in the cache is replaced.
pub fn build(name: Name, progress: &mut dyn FnMut(Progress)) -> Result<Image, ImageError> {
    cache::Cache::open()?.build(name, progress)
}

/// The images in the cache, by folder name.
pub fn list() -> Result<Vec<Image>, ImageError> {
    cache::Cache::open()?.list()
}

/// Whether an image of this name, as this program makes it, is in the cache.
pub fn is_built(name: Name) -> bool {
    cache::Cache::open().is_ok_and(|cache| matches!(cache.find(name), Ok(Some(_))))
}

/// Removes the images of that name (`debian`) or folder name from the cache and returns them. A running guest has read
/// its image already and does not miss it.
pub fn remove(name: &str) -> Result<Vec<Image>, ImageError> {
    cache::Cache::open()?.remove(name)
}
