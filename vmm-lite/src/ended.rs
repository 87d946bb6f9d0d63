//! Why a guest ended: every way out of a vCPU has a name.

/// Why a guest ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The guest powered the machine off.
    #[error("the guest powered off")]
    PowerOff,
    /// The guest reset the machine.
    #[error("the guest asked for a reset")]
    Reset,
    /// Whoever runs the machine stopped it.
    #[error("stopped from outside")]
    Stopped,
    /// The guest's kernel said that it has panicked.
    #[error("the guest panicked (what it said is on its console)")]
    Panicked,
    /// An exception while another was delivered, and another while that: the CPU gave up (Intel SDM vol. 3, §6.15).
    #[error("vCPU {cpu}: triple fault at {rip:#x}")]
    TripleFault {
        /// Which vCPU.
        cpu: u8,
        /// What it would have executed next.
        rip: u64,
    },
    /// KVM met an instruction that it cannot emulate.
    #[error("vCPU {cpu}: KVM cannot emulate what is at {rip:#x} (KVM_EXIT_INTERNAL_ERROR)")]
    NotEmulated {
        /// Which vCPU.
        cpu: u8,
        /// Where.
        rip: u64,
    },
    /// The CPU refused the guest's state.
    #[error("vCPU {cpu}: the CPU refused to enter the guest, reason {reason:#x} (KVM_EXIT_FAIL_ENTRY)")]
    EntryFailed {
        /// Which vCPU.
        cpu: u8,
        /// The hardware's reason.
        reason: u64,
    },
    /// KVM cannot reach memory that it was given.
    #[error("vCPU {cpu}: no memory behind {address:#x} (KVM_EXIT_MEMORY_FAULT)")]
    MemoryFault {
        /// Which vCPU.
        cpu: u8,
        /// The guest's physical address.
        address: u64,
    },
    /// An exit that this machine never asks for.
    #[error("vCPU {cpu}: an exit that this machine does not know: {exit}")]
    UnknownExit {
        /// Which vCPU.
        cpu: u8,
        /// KVM's name for it.
        exit: String,
    },
    /// The vCPU cannot be run at all.
    #[error("vCPU {cpu}: KVM_RUN: {why}")]
    RunFailed {
        /// Which vCPU.
        cpu: u8,
        /// The system's words.
        why: String,
    },
    /// Our own mistake: a vCPU's thread panicked.
    #[error("vCPU {cpu}: its thread panicked; this is a bug of the VMM")]
    Bug {
        /// Which vCPU.
        cpu: u8,
    },
}

impl Ended {
    /// Whether somebody wanted it so.
    pub fn is_orderly(&self) -> bool {
        matches!(self, Self::PowerOff | Self::Reset | Self::Stopped)
    }
}
