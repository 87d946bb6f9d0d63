//! What a VMM that the user starts must be told to attach to an interface: `vnet export`.

use super::{
    accel::Accel,
    qemu::{RX_QUEUE_SIZE, card_option, device_option, escape_commas, netdev_option, stream_option},
};
use std::{ffi::OsString, fmt::Write as _, path::Path};
use topology::plan::{Interface, SocketRole};

/// One interface of a `vhost-user` or `stream` node, and its socket.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// The interface.
    pub interface: &'a Interface,
    /// Its socket, by absolute path.
    pub socket: &'a Path,
    /// Which side listens, as the topology file says it: `Listen` is ours.
    pub role: SocketRole,
}

/// What goes where: `arguments` to standard output, `remarks` to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Fit to be pasted.
    pub arguments: String,
    /// What the user should know, a line each.
    pub remarks: Vec<String>,
}

/// Why nothing can be exported.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The shell would split it.
    #[error(
        "the socket's path {0:?} has blanks or is no UTF-8, which $(vnet export qemu …) cannot carry: give `listen:` another path"
    )]
    Unpastable(OsString),
    /// libvirt's XML cannot hold it.
    #[error("the socket's path {0:?} is no UTF-8: give `listen:` another path")]
    NoText(OsString),
    /// libvirt does not know QEMU's `-netdev stream` and `dgram`.
    #[error(
        "libvirt has no interface on such a socket: `vnet export qemu` prints what its <qemu:commandline> can hold"
    )]
    NoStream,
}

/// Arguments for QEMU, to stand behind the user's own: `qemu-system-x86_64 -m 512 … $(vnet export qemu ext1)`.
///
/// `memory` is the guest's in MiB and must equal the user's `-m`: QEMU takes guest memory from a shared file of exactly
/// that size, and says so if the two differ. `accel` is what the user's QEMU will run with.
pub fn qemu(attachments: &[Attachment<'_>], memory: u64, accel: Accel) -> Result<Export, ExportError> {
    let mut arguments = format!(
        "-object memory-backend-memfd,id=vnet-mem,size={memory}M,share=on -machine memory-backend=vnet-mem"
    );
    let mut remarks =
        vec![format!("the guest's memory is {memory} MiB: -m must be the same (vnet export qemu --memory)")];
    for (index, Attachment { interface, socket, role }) in attachments.iter().enumerate() {
        let path = pastable(socket)?;
        let end = match role {
            SocketRole::Listen => "reconnect=1",
            SocketRole::Connect => "server=on,wait=off",
        };
        let netdev = format!("vnet{index}");
        let option = netdev_option(&netdev, interface.queues);
        let device = device_option(&netdev, interface.mac, interface.queues, accel);
        let mtu = interface.mtu.map(|mtu| format!(",host_mtu={mtu}")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(
            arguments,
            " -chardev socket,id=char-{netdev},path={path},{end} -netdev {option} -device {device}{mtu}"
        );
        if interface.mac.is_none() {
            remarks.push(format!("{}: the file gives no mac, so QEMU's own default is used", interface.name));
        }
    }
    match accel {
        Accel::Kvm => arguments.push_str(" -accel kvm"),
        Accel::Tcg => remarks.push(
            "vectors=0 keeps QEMU 7.2 without KVM from crashing (vhost-user with MSI-X); under KVM it can go"
                .into(),
        ),
    }
    Ok(Export { arguments, remarks })
}

/// Arguments for QEMU to attach to a node of kind `stream`: no memory is shared, so the guest may have any network card (`model:`).
pub fn qemu_stream(attachments: &[Attachment<'_>]) -> Result<Export, ExportError> {
    let mut arguments = Vec::new();
    let mut remarks =
        vec!["any network card will do, in place of the one behind -device (`model:`)".to_owned()];
    for (index, Attachment { interface, socket, role }) in attachments.iter().enumerate() {
        let netdev = format!("vnet{index}");
        let option = stream_option(&netdev, &pastable(socket)?, *role == SocketRole::Connect);
        let card = card_option(interface.model, &netdev, interface.mac);
        arguments.push(format!("-netdev {option} -device {card}"));
    }
    if attachments.iter().any(|attachment| attachment.role == SocketRole::Listen) {
        remarks.push(
            "QEMU connects once, and not again if the switch is started again (QEMU 8.0 and later can: reconnect=, reconnect-ms=); \
             with `connect:` in the file it is QEMU that listens"
                .into(),
        );
    }
    Ok(Export { arguments: arguments.join(" "), remarks })
}

/// The same for a node of kind `dgram`, whose peer has its socket at `remote`.
pub fn qemu_dgram(attachments: &[Attachment<'_>], remote: &Path) -> Result<Export, ExportError> {
    let mut arguments = Vec::new();
    let theirs = pastable(remote)?;
    for (index, Attachment { interface, socket, .. }) in attachments.iter().enumerate() {
        let (netdev, ours) = (format!("vnet{index}"), pastable(socket)?);
        let card = card_option(interface.model, &netdev, interface.mac);
        arguments.push(format!(
            "-netdev dgram,id={netdev},local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours} -device {card}"
        ));
    }
    let remarks = vec!["any network card will do, in place of the one behind -device (`model:`)".to_owned()];
    Ok(Export { arguments: arguments.join(" "), remarks })
}

/// A socket's path as a value of an option that the shell is to paste.
fn pastable(socket: &Path) -> Result<String, ExportError> {
    let escaped = escape_commas(socket);
    let path = escaped
        .to_str()
        .filter(|path| !path.contains(char::is_whitespace) && !path.contains(['*', '?', '[']));
    path.map(str::to_owned).ok_or_else(|| ExportError::Unpastable(socket.as_os_str().to_owned()))
}

/// A libvirt domain with nothing but what attaching needs: well-formed XML, to merge into the user's own.
pub fn libvirt(attachments: &[Attachment<'_>]) -> Result<Export, ExportError> {
    let mut xml = String::from(
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n  <memoryBacking>\n    \
         <source type='memfd'/>\n    <access mode='shared'/>\n  </memoryBacking>\n  <devices>\n",
    );
    // What libvirt has no word for, QEMU is told past it.
    let mut overrides = String::new();
    for (index, attachment) in attachments.iter().enumerate() {
        let alias = format!("ua-vnet{index}");
        for line in libvirt_interface(attachment, &alias)?.lines() {
            // Writing to a String cannot fail.
            let _ = writeln!(xml, "    {line}");
        }
        let _ = write!(
            overrides,
            "    <qemu:device alias='{alias}'>\n      <qemu:frontend>\n        \
             <qemu:property name='ctrl_guest_offloads' type='bool' value='false'/>\n      \
             </qemu:frontend>\n    </qemu:device>\n"
        );
    }
    let _ = write!(xml, "  </devices>\n  <qemu:override>\n{overrides}  </qemu:override>\n</domain>");
    let remarks = vec![
        "<memoryBacking>, <qemu:override> and xmlns:qemu go into your <domain>, each <interface> into its <devices> (virsh edit)"
            .into(),
        "<qemu:override> needs libvirt 8.2 and QEMU 6.2; without it all works but a guest that turns off what it receives (Linux \
         does, to run XDP): it is not heard"
            .into(),
        "libvirt's QEMU is another user: `socket-mode`/`socket-group` must let it in".into(),
    ];
    Ok(Export { arguments: xml, remarks })
}

/// `alias` begins with `ua-`, as those of users do.
fn libvirt_interface(attachment: &Attachment<'_>, alias: &str) -> Result<String, ExportError> {
    let Attachment { interface, socket, role } = attachment;
    let path = socket.to_str().ok_or_else(|| ExportError::NoText(socket.as_os_str().to_owned()))?;
    let path = path.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;");
    let mut xml = String::from("<interface type='vhostuser'>\n");
    // Writing to a String cannot fail.
    if let Some(mac) = interface.mac {
        let _ = writeln!(xml, "  <mac address='{mac}'/>");
    }
    let _ = match role {
        SocketRole::Listen => writeln!(
            xml,
            "  <source type='unix' path='{path}' mode='client'>\n    <reconnect enabled='yes' timeout='1'/>\n  </source>"
        ),
        SocketRole::Connect => writeln!(xml, "  <source type='unix' path='{path}' mode='server'/>"),
    };
    xml.push_str("  <model type='virtio'/>\n");
    let queues = if interface.queues > 1 { format!(" queues='{}'", interface.queues) } else { String::new() };
    let _ = writeln!(xml, "  <driver{queues} rx_queue_size='{RX_QUEUE_SIZE}'/>");
    if let Some(mtu) = interface.mtu {
        let _ = writeln!(xml, "  <mtu size='{mtu}'/>");
    }
    let _ = writeln!(xml, "  <alias name='{alias}'/>");
    xml.push_str("</interface>\n");
    Ok(xml)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vswitch_core::{id::PortId, mac::MacAddr};

    fn interface() -> Interface {
        Interface {
            name: "eth0".into(),
            port: PortId::new(0, 0),
            mac: Some(MacAddr::new([2, 0, 0, 0, 0, 1])),
            addresses: vec![],
            gateways: vec![],
            asks: topology::plan::Asks::default(),
            mtu: None,
            queues: 1,
            model: topology::plan::Model::Virtio,
            sealed_memory: false,
            link_down: false,
        }
    }

    #[test]
    fn qemu_arguments_can_be_pasted() {
        let interface = interface();
        let attach = |socket, role| Attachment { interface: &interface, socket: Path::new(socket), role };
        let both = [attach("/run/a,b.sock", SocketRole::Listen), attach("/run/c.sock", SocketRole::Connect)];
        let export = qemu(&both, 512, Accel::Tcg).unwrap();
        insta::assert_snapshot!(export.arguments.replace(" -", "\n-"), @r"
        -object memory-backend-memfd,id=vnet-mem,size=512M,share=on
        -machine memory-backend=vnet-mem
        -chardev socket,id=char-vnet0,path=/run/a,,b.sock,reconnect=1
        -netdev vhost-user,id=vnet0,chardev=char-vnet0,queues=1
        -device virtio-net-pci,netdev=vnet0,mac=02:00:00:00:00:01,ctrl_guest_offloads=off,rx_queue_size=1024,vectors=0
        -chardev socket,id=char-vnet1,path=/run/c.sock,server=on,wait=off
        -netdev vhost-user,id=vnet1,chardev=char-vnet1,queues=1
        -device virtio-net-pci,netdev=vnet1,mac=02:00:00:00:00:01,ctrl_guest_offloads=off,rx_queue_size=1024,vectors=0
        ");
        let blank = qemu(&[attach("/my labs/a.sock", SocketRole::Listen)], 512, Accel::Tcg);
        assert!(matches!(blank, Err(ExportError::Unpastable(_))));
    }

    #[test]
    fn sockets_of_frames_need_no_shared_memory() {
        let interface = Interface { model: topology::plan::Model::E1000e, ..interface() };
        let attach = |role| Attachment { interface: &interface, socket: Path::new("/a.sock"), role };
        let export = qemu_stream(&[attach(SocketRole::Listen), attach(SocketRole::Connect)]).unwrap();
        insta::assert_snapshot!(export.arguments.replace(" -", "\n-"), @r"
        -netdev stream,id=vnet0,server=off,addr.type=unix,addr.path=/a.sock
        -device e1000e,netdev=vnet0,mac=02:00:00:00:00:01
        -netdev stream,id=vnet1,server=on,addr.type=unix,addr.path=/a.sock
        -device e1000e,netdev=vnet1,mac=02:00:00:00:00:01
        ");
        let export = qemu_dgram(&[attach(SocketRole::Listen)], Path::new("/b.sock")).unwrap();
        insta::assert_snapshot!(export.arguments.replace(" -", "\n-"), @r"
        -netdev dgram,id=vnet0,local.type=unix,local.path=/b.sock,remote.type=unix,remote.path=/a.sock
        -device e1000e,netdev=vnet0,mac=02:00:00:00:00:01
        ");
    }

    #[test]
    fn the_libvirt_domain_is_one_document() {
        let mut interface = interface();
        interface.queues = 2;
        let socket = Path::new("/run/it's.sock");
        let export =
            libvirt(&[Attachment { interface: &interface, socket, role: SocketRole::Listen }]).unwrap();
        insta::assert_snapshot!(export.arguments, @r"
        <domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
          <memoryBacking>
            <source type='memfd'/>
            <access mode='shared'/>
          </memoryBacking>
          <devices>
            <interface type='vhostuser'>
              <mac address='02:00:00:00:00:01'/>
              <source type='unix' path='/run/it&apos;s.sock' mode='client'>
                <reconnect enabled='yes' timeout='1'/>
              </source>
              <model type='virtio'/>
              <driver queues='2' rx_queue_size='1024'/>
              <alias name='ua-vnet0'/>
            </interface>
          </devices>
          <qemu:override>
            <qemu:device alias='ua-vnet0'>
              <qemu:frontend>
                <qemu:property name='ctrl_guest_offloads' type='bool' value='false'/>
              </qemu:frontend>
            </qemu:device>
          </qemu:override>
        </domain>
        ");
    }
}
