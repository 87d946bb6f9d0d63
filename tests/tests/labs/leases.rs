//! Leases outlive the switch that gave them, and the night: clients in namespaces, a switch that is killed, a lab that is taken down and up again.

use crate::{
    common::{Lab, left_out},
    process::{eventually, kill},
    routing::{ok, run},
};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

/// Two addresses for three clients.
const OFFICE: &str = "version: 1
name: NAME
vlans:
  users: { id: 10, gateway: 10.0.10.1/24, dhcp: { range: 10.0.10.50-10.0.10.51, lease: 1h } }
switches: { sw1: {} }
nodes:
  pc: { kind: netns }
  late: { kind: netns }
  third: { kind: netns }
  near: { kind: netns, addresses: [10.0.10.7/24] }
links:
  - { endpoints: [pc, sw1], vlan: { access: users } }
  - { endpoints: [late, sw1], vlan: { access: users } }
  - { endpoints: [third, sw1], vlan: { access: users } }
  - { endpoints: [near, sw1], vlan: { access: users } }
";

/// The two addresses.
const BOTH: [&str; 2] = ["10.0.10.50", "10.0.10.51"];

struct Scene {
    lab: Lab,
    name: String,
    file: PathBuf,
}

impl Scene {
    fn up(&self) -> String {
        self.lab.expect(0, &["up", "-d", self.file.to_str().expect("a path of ASCII")]).1
    }

    fn kept(&self) -> PathBuf {
        self.lab.state().join(&self.name).join("leases.json")
    }

    /// What udhcpc, with more arguments, gets in a node; nothing is set up there, so that nobody answers for the address.
    fn asks(&self, node: &str, arguments: &str) -> Option<String> {
        let line = format!("busybox udhcpc -f -q -n -t 3 -T 1 -i eth0 -s /bin/true {arguments}");
        let (_, said) = run(&self.lab, node, &line);
        said.split_once("lease of ").map(|(_, rest)| rest.split(' ').next().unwrap_or_default().to_owned())
    }

    /// Whose each address is, by its name, and for how long.
    fn leases(&self) -> BTreeMap<String, (String, u64)> {
        let leases = self.lab.json(&["show", "leases"]);
        let rows = leases["rows"].as_array().expect("a list").iter().filter(|row| row["state"] == "bound");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        rows.map(|row| {
            (text(&row["address"]), (text(&row["name"]), row["left_secs"].as_u64().expect("seconds")))
        })
        .collect()
    }

    /// The names of who has these addresses.
    fn names(&self) -> BTreeMap<String, String> {
        self.leases().into_iter().map(|(address, (name, _))| (address, name)).collect()
    }

    /// The name that a client gave itself is found.
    fn finds_phone(&self, address: &str) {
        let found = eventually("the gateway answers", || {
            let (good, said) = run(&self.lab, "near", "busybox nslookup phone 10.0.10.1");
            (good || said.contains("NXDOMAIN")).then_some(said)
        });
        assert!(found.contains(address), "{found}");
    }

    fn switch(&self) -> Option<u64> {
        let said = self.lab.vnet(&["show", "datapath", "--format", "json"]).stdout;
        serde_json::from_slice::<Value>(&said).ok()?["pid"].as_u64()
    }
}

#[test]
fn leases_outlive_the_switch_and_the_lab() {
    let busybox = Command::new("busybox").arg("true").output().is_ok();
    if !rustix::process::geteuid().is_root() || !busybox {
        return left_out("leases that outlive the switch: this needs root, for namespaces, and busybox");
    }
    let (lab, name) = (Lab::new(), format!("t{}-kept", std::process::id()));
    let file = lab.write("office.vnet.yaml", &OFFICE.replace("NAME", &name));
    let scene = Scene { lab, name, file };
    scene.up();
    assert!(!scene.kept().exists(), "nothing was given");
    // One whose MAC address nobody knows, and that calls itself something.
    ok(&scene.lab, "pc", "ip link set eth0 address 02:00:00:00:99:01");
    let phone = scene.asks("pc", "-x hostname:phone").expect("an address");
    let other = *BOTH.iter().find(|address| **address != phone).expect("one of two");
    scene.finds_phone(&phone);
    eventually("it is kept", || fs::read_to_string(scene.kept()).ok().filter(|text| text.contains(&phone)));

    // The switch is killed, and nobody says that he has that address.
    let switch = scene.switch().expect("it runs");
    kill(u32::try_from(switch).expect("a pid"));
    eventually("there is another", || scene.switch().filter(|pid| *pid != switch));
    eventually("it remembers", || scene.leases().contains_key(&phone).then_some(()));
    let (whose, left) = scene.leases()[&phone].clone();
    assert!(whose == "phone" && (3000..3600).contains(&left), "{whose}: {left}");
    scene.finds_phone(&phone);
    // Who wants it gets the other, and who comes then nothing.
    let late = eventually("the gateway answers", || scene.asks("late", &format!("-r {phone}")));
    assert_eq!(late, other);
    assert_eq!(scene.asks("third", ""), None);

    // In the evening and in the morning.
    let expected: BTreeMap<_, _> = [(phone.clone(), "phone".into()), (late.clone(), "late".into())].into();
    assert_eq!(scene.names(), expected);
    scene.lab.expect(0, &["down"]);
    scene.lab.assert_gone();
    let said = scene.up();
    assert!(!said.contains("leases"), "{said}");
    eventually("it remembers", || (scene.names() == expected).then_some(()));
    scene.finds_phone(&phone);
    assert_eq!(scene.asks("third", ""), None);
    assert_eq!(scene.asks("late", "").as_ref(), Some(&late));
    scene.lab.expect(0, &["down"]);

    // A copy for testing neither knows of it nor changes it.
    let kept = fs::read(scene.kept()).expect("it is kept");
    scene.lab.expect(0, &["test", scene.file.to_str().expect("a path of ASCII")]);
    assert_eq!(fs::read(scene.kept()).expect("it is kept"), kept);

    // A file that gives other addresses.
    let text = fs::read_to_string(&scene.file).expect("its file");
    fs::write(&scene.file, text.replace("range: 10.0.10.50-10.0.10.51", "range: 10.0.10.51-10.0.10.60"))
        .expect("its file");
    scene.up();
    eventually("it is said", || {
        let (log, _) = scene.lab.expect(0, &["logs", "controller"]);
        log.contains("1 leases of before are forgotten").then_some(())
    });
    assert_eq!(scene.leases().into_keys().collect::<Vec<_>>(), ["10.0.10.51"]);
    scene.lab.expect(0, &["down"]);
    assert!(!fs::read_to_string(scene.kept()).expect("it is kept").contains("10.0.10.50"));

    // A file that is none.
    fs::write(scene.kept(), "{").expect("a file");
    let said = scene.up();
    assert!(said.contains("are not taken up: it is no list of leases"), "{said}");
    assert_eq!(scene.leases(), BTreeMap::new());
    scene.lab.expect(0, &["down"]);
    scene.lab.assert_gone();
}
