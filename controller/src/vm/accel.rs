//! KVM or TCG: decided by a trial of what KVM here runs, and taken back if a guest stays silent.

use rustix::fs::{Access, access};
use std::{fmt, path::Path, sync::OnceLock, time::Duration};

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
    /// /dev/kvm is ours to open, and runs what is asked for.
    Usable,
    /// It is there and ours, but runs no guest's kernel: a paravirtual one, on which Linux does not boot.
    NoKernels,
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
            Self::NoKernels => {
                "KVM here is a paravirtual one, which runs the bundled guest and no other kernel"
            }
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

/// How a guest with a kernel of its own is run here.
pub fn decide() -> Decision {
    let why = for_kernels();
    Decision { accel: if why == Why::Usable { Accel::Kvm } else { Accel::Tcg }, why }
}

/// Why a guest with a kernel of its own can run under KVM here ([`Why::Usable`]), or why it cannot.
pub fn for_kernels() -> Why {
    // A KVM is what it is; and trying takes some milliseconds.
    static TRIED: OnceLock<bool> = OnceLock::new();
    judge(rights(), || *TRIED.get_or_init(|| vmm_lite::runs_kernels().unwrap_or(false)))
}

/// Why a bundled guest can run here ([`Why::Usable`]), or why it cannot: it needs /dev/kvm, be that paravirtual or not.
pub fn for_bundled() -> Why {
    match rights() {
        None => Why::NoDevice,
        Some(false) => Why::NoRights,
        Some(true) => Why::Usable,
    }
}

/// Whether this user may open /dev/kvm; none if it is not there.
fn rights() -> Option<bool> {
    let kvm = Path::new("/dev/kvm");
    kvm.exists().then(|| access(kvm, Access::READ_OK | Access::WRITE_OK).is_ok())
}

/// What follows from a /dev/kvm that is absent (`None`) or there with or without rights, and from the trial.
fn judge(kvm: Option<bool>, runs_kernels: impl FnOnce() -> bool) -> Why {
    match kvm {
        None => Why::NoDevice,
        Some(false) => Why::NoRights,
        Some(true) if runs_kernels() => Why::Usable,
        Some(true) => Why::NoKernels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_usable_where_a_trial_says_so_and_tried_only_where_it_may_be() {
        assert_eq!(judge(Some(true), || true), Why::Usable);
        assert_eq!(judge(Some(true), || false), Why::NoKernels);
        assert_eq!(judge(Some(false), || panic!("it must not be opened")), Why::NoRights);
        assert_eq!(judge(None, || panic!("it is not there")), Why::NoDevice);
    }

    #[test]
    fn silence_takes_kvm_back_once() {
        let kvm = Decision { accel: Accel::Kvm, why: Why::Usable };
        let tcg = kvm.after_silence().unwrap();
        assert_eq!(tcg, Decision { accel: Accel::Tcg, why: Why::Silent });
        assert_eq!(tcg.after_silence(), None);
    }
}
