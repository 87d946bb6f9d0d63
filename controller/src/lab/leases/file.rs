//! The leases of a lab on disk: `vnet/LAB/leases.json` in the user's folder of state. By the clock on the wall, since no other goes on while the lab is down.

use crate::lab::name::LabName;
use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};
use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use vswitch_core::{mac::MacAddr, vlan::VlanId};
use vswitchd::control::protocol::{KEPT_LEASES, KeptLease};

/// What is written; what is read must be of this version.
const VERSION: u32 = 1;

/// The longest file that is read: what [`KEPT_LEASES`] take is shorter.
const LONGEST: u64 = 16 << 20;

/// A renewal by less than so many seconds, or none that was rounded another way, is no change.
const ROUNDED: u64 = 2;

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    version: u32,
    /// The topology file.
    file: PathBuf,
    /// When it was written, in seconds since 1970, as all times here.
    written: u64,
    #[serde(rename = "leases")]
    pub(super) entries: Vec<Entry>,
}

/// What every version says.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// An address that a client has, or had last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    vlan: VlanId,
    address: Ipv4Addr,
    mac: MacAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    until: u64,
}

impl Kept {
    /// The same as a switch is told of it now. If the clock was set back since, no time has passed: nobody gets more than was left.
    pub(super) fn leases(&self, now: u64) -> Vec<KeptLease> {
        let lease = |entry: &Entry| KeptLease {
            vlan: entry.vlan,
            address: entry.address,
            mac: entry.mac,
            name: entry.name.clone(),
            left_secs: entry.until.saturating_sub(now.max(self.written)),
        };
        self.entries.iter().map(lease).collect()
    }
}

/// What a switch said `now` as it is written; of what is over `before` says since when.
pub(super) fn entries(leases: &[KeptLease], before: &[Entry], now: u64) -> Vec<Entry> {
    let over = |lease: &KeptLease| {
        let place =
            before.binary_search_by_key(&(lease.vlan, lease.address), |entry| (entry.vlan, entry.address));
        let entry = place.ok().map(|place| &before[place]).filter(|entry| entry.mac == lease.mac);
        entry.map_or(now, |entry| entry.until.min(now))
    };
    let entry = |lease: &KeptLease| Entry {
        vlan: lease.vlan,
        address: lease.address,
        mac: lease.mac,
        name: lease.name.clone(),
        until: if lease.left_secs == 0 { over(lease) } else { now.saturating_add(lease.left_secs) },
    };
    leases.iter().map(entry).collect()
}

/// Whether that is the same but for how its times were rounded.
pub(super) fn say_the_same(one: &[Entry], other: &[Entry]) -> bool {
    let same = |(one, other): (&Entry, &Entry)| {
        one.until.abs_diff(other.until) <= ROUNDED && *one == Entry { until: one.until, ..other.clone() }
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// Seconds since 1970; 0 before.
pub(super) fn secs(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The folder of this user's state: `VNET_STATE_DIR`, else `XDG_STATE_HOME/vnet`, else `HOME/.local/state/vnet`, else `/var/lib/vnet` for root.
pub(super) fn folder() -> Option<PathBuf> {
    let given = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // A path that is not absolute is to be ignored (XDG Base Directory Specification).
    let absolute = |name| given(name).filter(|path| path.is_absolute());
    let root = || rustix::process::getuid().is_root().then(|| "/var/lib/vnet".into());
    given("VNET_STATE_DIR")
        .and_then(|path| std::path::absolute(path).ok())
        .or_else(|| absolute("XDG_STATE_HOME").map(|base| base.join("vnet")))
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state/vnet")))
        .or_else(root)
}

/// Where the leases of one lab are, and of which topology file they are.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: PathBuf,
}

impl Place {
    /// That of the lab of this name, in the `folder` of all.
    pub(super) fn new(folder: &Path, lab: &LabName, file: PathBuf) -> Self {
        Self { path: folder.join(lab.as_str()).join("leases.json"), file }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file beside it of this use.
    fn beside(&self, what: &str) -> PathBuf {
        self.path.with_extension(format!("json.{what}"))
    }

    /// What is there; none: nothing.
    ///
    /// # Errors
    /// What is there is no list of leases of this file's lab, and why.
    pub(super) fn read(&self) -> Result<Option<Kept>, String> {
        // Whatever is there in its place: it is not waited for.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = match open(&self.path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(why) => return Err(format!("it cannot be read: {why}")),
        };
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err("it is no file".into());
        }
        let mut text = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut text).map_err(|why| format!("it cannot be read: {why}"))?;
        if text.len() as u64 > LONGEST {
            return Err(format!("it has more than {LONGEST} bytes"));
        }
        let garbled = |why| format!("it is no list of leases: {why}");
        let Versioned { version } = serde_json::from_slice(&text).map_err(garbled)?;
        if version != VERSION {
            return Err(format!("it is of version {version}, and this vnet reads version {VERSION}"));
        }
        let kept: Kept = serde_json::from_slice(&text).map_err(garbled)?;
        if kept.entries.len() > KEPT_LEASES {
            return Err(format!("it has more than {KEPT_LEASES} leases"));
        }
        if kept.file != self.file {
            return Err(format!("it is of another lab of this name, {}", kept.file.display()));
        }
        Ok(Some(kept))
    }

    /// Puts what is there out of the way, in the place of what was put there before; what is to be said about it.
    pub(super) fn set_aside(&self, why: &str) -> String {
        let aside = self.beside("aside");
        let done = match fs::rename(&self.path, &aside) {
            Ok(()) => format!("it is {} now", aside.display()),
            Err(error) => format!("and it cannot be moved to {}: {error}", aside.display()),
        };
        format!("the leases in {} are not taken up: {why}; {done}", self.path.display())
    }

    /// Writes it in one step: whoever reads sees the old list or the new one, also after a crash. Without any leases there is no file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn write(&self, entries: &[Entry], now: u64) -> io::Result<()> {
        if entries.is_empty() {
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // If nothing else is there, such as what was set aside.
            if let Some(folder) = self.path.parent() {
                let _ = fs::remove_dir(folder);
            }
            return Ok(());
        }
        let kept =
            Kept { version: VERSION, file: self.file.clone(), written: now, entries: entries.to_vec() };
        let text = serde_json::to_vec_pretty(&kept)?;
        if let Some(folder) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let new = self.beside("new");
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(&new)?;
        file.write_all(&text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, &self.path))
    }
}
