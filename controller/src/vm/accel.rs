//! KVM or TCG: decided by what the machine says, and taken back if a guest stays silent.

use rustix::fs::{Access, access};
use std::{fmt, fs, path::Path, time::Duration};

/// How QEMU runs guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// On the CPU, by /dev/kvm.
    Kvm,
    /// Translated.
    Tcg,
}

impl Accel {
    /// QEMU's word for it (`-accel`).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Why an [`Accel`] was chosen; its text is for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The CPU virtualises and /dev/kvm is ours to open.
    Usable,
    /// The CPU has neither `vmx` nor `svm`. A paravirtual /dev/kvm may be there all the same; Linux does not boot on it.
    NoVirtualisation,
    /// There is no /dev/kvm.
    NoDevice,
    /// /dev/kvm is there, but this user must not open it.
    NoRights,
    /// A guest started with KVM did not answer its probe within [`SILENCE`].
    Silent,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usable => "/dev/kvm is usable",
            Self::NoVirtualisation => "this CPU shows neither vmx nor svm in /proc/cpuinfo",
            Self::NoDevice => "there is no /dev/kvm",
            Self::NoRights => "this user must not open /dev/kvm",
            Self::Silent => "a guest under KVM did not answer its probe within 60 s",
        })
    }
}

/// How long a guest under KVM may take to answer its probe before [`Decision::after_silence`].
pub const SILENCE: Duration = Duration::from_secs(60);

/// What guests are run with, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The accelerator.
    pub accel: Accel,
    /// The reason, for the user.
    pub why: Why,
}

impl Decision {
    /// What follows when a guest stayed silent for [`SILENCE`]: TCG instead of KVM, to be started again. None if it ran
    /// under TCG already: then the accelerator is not at fault.
    pub fn after_silence(self) -> Option<Self> {
        (self.accel == Accel::Kvm).then_some(Self { accel: Accel::Tcg, why: Why::Silent })
    }
}

/// Looks at this machine.
pub fn decide() -> Decision {
    let kvm = Path::new("/dev/kvm");
    let rights =
        if kvm.exists() { Some(access(kvm, Access::READ_OK | Access::WRITE_OK).is_ok()) } else { None };
    // An unreadable cpuinfo promises nothing.
    judge(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default(), rights)
}

/// The decision for a CPU described by `cpuinfo`, and a /dev/kvm that is absent (`None`) or there with or without rights.
fn judge(cpuinfo: &str, kvm: Option<bool>) -> Decision {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let virtualises = flags.split_ascii_whitespace().any(|flag| matches!(flag, "vmx" | "svm"));
    let why = match kvm {
        None => Why::NoDevice,
        Some(_) if !virtualises => Why::NoVirtualisation,
        Some(false) => Why::NoRights,
        Some(true) => Why::Usable,
    };
    Decision { accel: if why == Why::Usable { Accel::Kvm } else { Accel::Tcg }, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_needs_the_cpu_the_device_and_the_rights() {
        let intel = "processor\t: 0\nflags\t\t: fpu vmx sse2\n";
        let paravirtual = "processor\t: 0\nflags\t\t: fpu sse2 svmx\n";
        assert_eq!(judge(intel, Some(true)).accel, Accel::Kvm);
        assert_eq!(judge(intel, Some(false)).why, Why::NoRights);
        assert_eq!(judge(intel, None).why, Why::NoDevice);
        assert_eq!(judge(paravirtual, Some(true)).why, Why::NoVirtualisation);
        assert_eq!(judge("", Some(true)).accel, Accel::Tcg);
    }

    #[test]
    fn silence_takes_kvm_back_once() {
        let kvm = Decision { accel: Accel::Kvm, why: Why::Usable };
        let tcg = kvm.after_silence().unwrap();
        assert_eq!(tcg, Decision { accel: Accel::Tcg, why: Why::Silent });
        assert_eq!(tcg.after_silence(), None);
    }
}
