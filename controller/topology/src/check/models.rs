//! Network cards: which nodes have one to choose, and what each needs.

use crate::{
    check::interfaces::NodeInterface,
    codes::Code,
    compile::model_of,
    plan::{Boot, Model, NodeKind, Vmm},
    report::{Sink, Span},
};

/// Checks the cards of all nodes; `kinds` has each node's in its place.
pub(crate) fn check(interfaces: &[NodeInterface], kinds: &[Option<NodeKind>], sink: &mut Sink) {
    for interface in interfaces {
        if let Some(Some(kind)) = kinds.get(interface.node) {
            check_one(interface, kind, sink);
        }
    }
}

fn check_one(interface: &NodeInterface, kind: &NodeKind, sink: &mut Sink) {
    let said = &interface.said;
    let queues = said.queues.as_ref().filter(|queues| queues.value.0 > 1).map(|queues| queues.span);
    let rings = [("queues", queues), ("guest-memory", said.guest_memory.as_ref().map(|said| said.span))];
    let rings = rings.into_iter().filter_map(|(key, span)| Some((key, span?)));
    match kind {
        NodeKind::Vm(vm) => {
            let Some(model) = &said.model else { return };
            let (span, model) = (model.span, model_of(model.value));
            if !model.is_virtio() {
                emulated(model, vm.vmm, &vm.boot, span, sink);
                for (key, span) in rings {
                    let what = format!(
                        "`{key}` needs `model: virtio`: a card of model {} has no rings",
                        model.word()
                    );
                    sink.error(Code::NeedsKey, span, what).help(format!("leave `{key}` out, or `model`"));
                }
            }
        }
        NodeKind::Stream(_) | NodeKind::Dgram { .. } => {
            for (key, span) in rings {
                let what = format!("a node of kind {} has no `{key}`", kind.word());
                sink.error(Code::KeyNotForKind, span, what)
                    .help("leave it out: frames on a socket have one queue, and share no memory");
            }
        }
        NodeKind::User => {
            let model = said.model.as_ref().map(|said| ("model", said.span));
            for (key, span) in rings.chain(model) {
                let what = format!("a node of kind {} has no `{key}`", kind.word());
                sink.error(Code::KeyNotForKind, span, what).help("leave it out: what is there is no machine");
            }
        }
        NodeKind::Station
        | NodeKind::VhostUser(_)
        | NodeKind::Tap { .. }
        | NodeKind::Netns { .. }
        | NodeKind::Nic { .. }
        | NodeKind::Pcap { .. } => {
            if let Some(model) = &said.model {
                let what = format!("a node of kind {} has no `model`", kind.word());
                sink.error(Code::KeyNotForKind, model.span, what)
                    .help("`model` belongs to kind vm or stream or dgram");
            }
        }
    }
}

/// A card that is no virtio-net is emulated by QEMU, and needs a driver of its own.
fn emulated(model: Model, vmm: Vmm, boot: &Boot, span: Span, sink: &mut Sink) {
    let word = model.word();
    match (boot, vmm) {
        (Boot::Bundled, _) => {
            sink.error(
                Code::NeedsKey,
                span,
                format!("`model: {word}` needs a guest with its driver: the bundled one has none"),
            )
            .help("say what QEMU is to boot, like `image: debian-generic`");
        }
        (_, Vmm::VmmLite) => {
            sink.error(
                Code::Exclusive,
                span,
                format!("`model: {word}` is emulated by QEMU, which `vmm: vmm-lite` excludes"),
            )
            .help("leave `vmm` out, and QEMU boots it; or leave `model` out");
        }
        (Boot::Image(name), _) if name == "debian" => {
            sink.error(Code::NeedsKey, span, format!("`model: {word}` needs `image: debian-generic`: the kernel of `debian` has no driver for it"))
                .help("write `image: debian-generic`, whose kernel has a driver for every model; or leave `model` out");
        }
        _ => {}
    }
}
