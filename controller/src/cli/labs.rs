//! The verbs that look at labs or ask one: `ls`, `logs`, `show`, `metrics`, `trace`, `exec`, `link`, `export`.

use super::{
    args::{ExportTo, Format, View},
    firewalls::Of,
    out, render,
};
use crate::{
    api::{
        client::Client,
        types::{
            DatapathView, DropRow, ExecRequest, ExitsRow, ExportRequest, LabState, LabView, LinkRequest,
            LinkRow, LookRequest, NodeRow, PortRow, RulesView, TraceRequest, TraceView, TransferReport,
            TransferRequest, VlanRow,
        },
        why::{WhyRequest, WhyView},
    },
    failure::{Context, Exit, Failure},
    lab::{
        name::LabName,
        rundir::{LabDir, Runtime},
    },
    vm::qemu::RunDirectory,
};
use comfy_table::{Table, presets::NOTHING};
use serde::de::DeserializeOwned;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};
use vswitchd::control::protocol::{ConnectionTable, FdbTable, LeaseTable, NeighbourTable, RouteRow};

/// Lists the labs of this user.
pub(super) async fn ls(format: Format) -> Result<(), Failure> {
    let runtime = Runtime::of_environment();
    let mut labs = vec![];
    // At once: one that does not answer holds up no other.
    let looks = runtime.labs()?.into_iter().map(|name| {
        let dir = runtime.lab(&name);
        tokio::spawn(async move { look(&name, &dir).await })
    });
    for looked in looks.collect::<Vec<_>>() {
        labs.push(looked.await.context("labs", || "a lab".into())??);
    }
    match format {
        Format::Json => out::say(serde_json::to_string(&labs).context("json", || "the labs".into())?),
        Format::Table => out::say(table(&labs)),
    }
    Ok(())
}

async fn look(name: &LabName, dir: &LabDir) -> Result<LabView, Failure> {
    let state = if dir.is_held()? {
        match Client::new(&dir.api_socket(), name.as_str()).answers().await {
            Ok(view) => return Ok(view),
            Err(_) => LabState::Silent,
        }
    } else {
        LabState::Orphaned
    };
    let lab = name.to_string();
    Ok(LabView { lab, file: None, state, pid: 0, nodes: 0, ports: 0, switch_restarts: 0, events: 0 })
}

fn table(labs: &[LabView]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["LAB", "STATE", "NODES", "PORTS", "RESTARTS", "FILE"]);
    for lab in labs {
        let state = format!("{:?}", lab.state).to_lowercase();
        // Of a lab that is not up nobody says them, or not yet.
        let up = matches!(lab.state, LabState::Running | LabState::Degraded);
        let number = |number: String| if up { number } else { "-".into() };
        let [nodes, ports, restarts] =
            [lab.nodes.to_string(), lab.ports.to_string(), lab.switch_restarts.to_string()].map(number);
        table.add_row([&lab.lab, &state, &nodes, &ports, &restarts, lab.file.as_deref().unwrap_or("-")]);
    }
    table
}

/// Prints a log of a lab; for a virtual machine, what its VMM said and then what its console said. Without a name, lists
/// what has a log.
pub(super) fn logs(name: Option<&LabName>, of: Option<&str>, to: &mut impl io::Write) -> Result<(), Failure> {
    let runtime = Runtime::of_environment();
    let name = chosen(&runtime, name)?;
    let dir = runtime.lab(&name);
    let Some(of) = of else {
        out::say(logs_in(&dir.log("controller")).join("\n"));
        return Ok(());
    };
    // A name with a `/` in it would lead out of the folder.
    let of = of.replace('/', "-");
    let path = log_of(&dir, &of);
    let mut file = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::invalid("no-such-log", format!("lab {name} has no log of `{of}`"))
                .mend(format!("there are: {}", logs_in(&path).join(", ")))
        }
        _ => Failure::failed("log", format!("{}: {error}", path.display())),
    })?;
    io::copy(&mut file, to).context("log", || path.display().to_string())?;
    let console = RunDirectory::new(dir.path().join(of)).log();
    if let Ok(mut said) = File::open(&console) {
        io::copy(&mut said, to).context("log", || console.display().to_string())?;
    }
    Ok(())
}

/// The log of `of`: a node, or a process of the lab by the name that it has in messages or as a process.
fn log_of(dir: &LabDir, of: &str) -> PathBuf {
    let path = dir.log(of);
    match of {
        "switch" if !path.exists() => dir.log("vswitchd"),
        "stations" if !path.exists() => dir.log("station"),
        _ => path,
    }
}

/// What has a log in the folder of `path`.
fn logs_in(path: &Path) -> Vec<String> {
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
    let stems = entries.filter_map(|entry| Some(entry.path().file_stem()?.to_string_lossy().into_owned()));
    let mut names: Vec<_> = stems.collect();
    names.sort();
    names
}

/// The API of the lab that is meant.
pub(super) fn api(name: Option<&LabName>) -> Result<Client, Failure> {
    let runtime = Runtime::of_environment();
    let name = chosen(&runtime, name)?;
    Ok(Client::new(&runtime.lab(&name).api_socket(), name.as_str()))
}

/// `test --running`, `pingall`.
pub(super) async fn act<T: DeserializeOwned>(name: Option<&LabName>, action: &str) -> Result<T, Failure> {
    api(name)?.act(action).await
}

/// Prints what is counted, for a program that collects it.
pub(super) async fn metrics(name: Option<&LabName>) -> Result<(), Failure> {
    out::bytes(api(name)?.metrics().await?.as_bytes());
    Ok(())
}

/// Shows a part of a lab.
pub(super) async fn show(
    name: Option<&LabName>,
    what: View,
    of: &LookRequest,
    format: Format,
) -> Result<(), Failure> {
    let (api, said) = (api(name)?, of.interface.as_deref());
    match what {
        View::Ports => render::print(&api.look::<Vec<PortRow>>("ports").await?, format),
        View::Nodes => render::print(&api.look::<Vec<NodeRow>>("nodes").await?, format),
        View::Links => render::print(&api.look::<Vec<LinkRow>>("links").await?, format),
        View::Fdb => render::print(&api.look::<FdbTable>("fdb").await?, format),
        View::Vlans => render::print(&api.look::<Vec<VlanRow>>("vlans").await?, format),
        View::Drops => render::print(&api.look::<Vec<DropRow>>("drops").await?, format),
        View::Rules => {
            let view: RulesView = api.look_at("rules", of).await?;
            render::print(&Of { said, view }, format)
        }
        View::Connections => {
            let view: ConnectionTable = api.look_at("connections", of).await?;
            render::print(&Of { said, view }, format)
        }
        View::Routes => render::print(&api.look::<Vec<RouteRow>>("routes").await?, format),
        View::Neighbours => render::print(&api.look::<NeighbourTable>("neighbours").await?, format),
        View::Leases => render::print(&api.look::<LeaseTable>("leases").await?, format),
        View::Datapath => render::print(&api.look::<DatapathView>("datapath").await?, format),
    }
}

/// Shows what vCPUs left their guests for.
pub(super) async fn exits(name: Option<&LabName>, format: Format) -> Result<(), Failure> {
    render::print(&api(name)?.look::<Vec<ExitsRow>>("exits").await?, format)
}

/// What would become of a frame.
pub(super) async fn trace(name: Option<&LabName>, request: &TraceRequest) -> Result<TraceView, Failure> {
    api(name)?.trace(request).await
}

/// What was recorded.
pub(super) async fn why(name: Option<&LabName>, request: &WhyRequest) -> Result<WhyView, Failure> {
    api(name)?.why(request).await
}

/// Sends bytes from one node to another.
pub(super) async fn transfer(
    name: Option<&LabName>,
    request: &TransferRequest,
) -> Result<TransferReport, Failure> {
    api(name)?.transfer(request).await
}

/// Sets a link up or down.
pub(super) async fn set_link(name: Option<&LabName>, request: &LinkRequest) -> Result<(), Failure> {
    api(name)?.set_link(request).await
}

/// Runs a command in a node: the exit code is its status, and what is missing of its output is said.
pub(super) async fn exec(name: Option<&LabName>, request: ExecRequest) -> Result<u8, Failure> {
    let reply = api(name)?.exec(&request).await?;
    out::bytes(&reply.stdout);
    // Whoever does not read standard error misses nothing of standard output.
    let _ = io::stderr().write_all(&reply.stderr);
    if let Some(seconds) = reply.timed_out_after {
        out::note(format_args!(
            "error[timed-out]: {:?} on {} was killed after {seconds} s\n  help: start what takes longer in the \
             background: exec {} -- sh -c 'COMMAND >/tmp/log 2>&1 &'",
            request.command.join(" "),
            request.node,
            request.node,
        ));
    }
    // A status fits a byte as the kernel has it; a signal's is 128 more, as a shell says it.
    let status = u8::try_from(reply.status).unwrap_or(Exit::Failed as u8);
    if reply.cut == 0 {
        return Ok(status);
    }
    out::note(format_args!(
        "error[output-cut]: {} more bytes of output were cut: 24 KiB of each output are kept\n  help: ask for less, or \
         in parts (head, tail, grep)",
        reply.cut
    ));
    Ok(if status == 0 { Exit::Failed as u8 } else { status })
}

/// Prints what another VMM needs to attach to `node`: arguments on standard output, remarks on standard error.
pub(super) async fn export(
    name: Option<&LabName>,
    vmm: ExportTo,
    node: &str,
    memory: u64,
) -> Result<(), Failure> {
    let vmm = match vmm {
        ExportTo::Qemu => "qemu",
        ExportTo::Libvirt => "libvirt",
    };
    let request = ExportRequest { vmm: vmm.into(), node: node.into(), memory };
    let export = api(name)?.export(&request).await?;
    out::say(format_args!("{}", export.arguments));
    for remark in &export.remarks {
        out::note(format_args!("{remark}"));
    }
    Ok(())
}

/// The lab that is meant: the named one, else the only one.
pub(super) fn chosen(runtime: &Runtime, name: Option<&LabName>) -> Result<LabName, Failure> {
    let labs = runtime.labs()?;
    match (name, labs.as_slice()) {
        (Some(name), labs) if labs.contains(name) => Ok(name.clone()),
        (Some(name), _) => {
            Err(Failure::new(Exit::NothingRunning, "not-running", format!("no lab `{name}` is running"))
                .mend("`vnet ls` lists the labs"))
        }
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Failure::new(Exit::NothingRunning, "not-running", "no lab is running")
            .mend("start one: `vnet up FILE`")),
        (None, several) => Err(Failure::invalid(
            "which-lab",
            format!(
                "several labs are running: {}",
                several.iter().map(LabName::as_str).collect::<Vec<_>>().join(", ")
            ),
        )
        .mend("say which with --name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_lab_needs_no_name_and_a_name_must_exist() {
        let base = tempfile::tempdir().unwrap();
        let runtime = Runtime::at(&base.path().join("vnet"));
        assert_eq!(chosen(&runtime, None).unwrap_err().exit, Exit::NothingRunning);
        let [office, home] = ["office", "home"].map(|name| name.parse::<LabName>().unwrap());
        let _office = runtime.claim(&office).unwrap();
        assert_eq!(chosen(&runtime, None).unwrap(), office);
        assert_eq!(chosen(&runtime, Some(&home)).unwrap_err().exit, Exit::NothingRunning);
        let _home = runtime.claim(&home).unwrap();
        assert_eq!(chosen(&runtime, None).unwrap_err().exit, Exit::Invalid);
    }
}
