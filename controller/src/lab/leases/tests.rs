//! A folder of state, a switch that says what it has given, and files of every kind.

use super::{file::Place, *};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, fs::symlink},
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};
use vswitchd::control::protocol::{Kept, Reply, Request, VERSION};

/// A moment of the clock on the wall.
fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + secs)
}

fn lease(n: u8, left_secs: u64) -> KeptLease {
    KeptLease {
        vlan: 10.try_into().unwrap(),
        address: [10, 0, 10, n].into(),
        mac: format!("02:00:00:00:00:{n:02x}").parse().unwrap(),
        name: Some(format!("phone{n}")),
        left_secs,
    }
}

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Not there at first.
    fn state(&self) -> PathBuf {
        self.folder.path().join("state/vnet")
    }

    fn path(&self) -> PathBuf {
        self.state().join("office/leases.json")
    }

    fn place_of(&self, file: &str) -> Place {
        Place::new(&self.state(), &"office".parse().unwrap(), file.into())
    }

    /// A controller that begins.
    fn controller(&self, now: SystemTime) -> (Leases, Vec<String>) {
        let leases = Leases::new().unwrap();
        let said = leases.begin_at(self.place_of("/labs/office.vnet.yaml"), now);
        (leases, said)
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// What a controller begins with where this is the file.
    fn begins_with(&self, text: impl AsRef<[u8]>) -> (Vec<KeptLease>, Vec<String>) {
        fs::create_dir_all(self.path().parent().unwrap()).unwrap();
        fs::write(self.path(), text).unwrap();
        let (leases, said) = self.controller(at(100));
        (leases.remembered(), said)
    }
}

#[test]
fn what_was_given_is_there_when_the_lab_is_up_again() {
    let scene = Scene::new();
    let (leases, said) = scene.controller(at(0));
    assert_eq!((leases.remembered(), said), (vec![], vec![]));
    assert_eq!(leases.known().take(vec![], at(0)), None);
    assert!(!scene.state().exists(), "nothing was given, and nothing is kept");
    assert_eq!(leases.known().take(vec![lease(50, 3600), lease(51, 60), lease(52, 0)], at(0)), None);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(scene.path()), mode(scene.state().join("office"))), (0o600, 0o700));
    // An hour less a minute later.
    let (again, said) = scene.controller(at(3540));
    assert_eq!((again.remembered(), said), (vec![lease(50, 60), lease(51, 0), lease(52, 0)], vec![]));
    // Since when they are over stays known, and of what has not changed nothing is written.
    assert_eq!(again.known().take(vec![lease(50, 60), lease(51, 0), lease(52, 0)], at(3540)), None);
    let before = scene.text();
    assert!(before.contains("\"written\": 1700000000"), "{before}");
    assert_eq!(again.known().take(vec![lease(50, 3600), lease(51, 0), lease(52, 0)], at(3600)), None);
    let after = scene.text();
    assert!(after.contains("\"written\": 1700003600") && after.contains("\"until\": 1700000060"), "{after}");
    // All were forgotten, and so is the file.
    assert_eq!(again.known().take(vec![], at(3600)), None);
    assert_eq!(scene.controller(at(3600)).0.remembered(), []);
    assert!(!scene.state().join("office").exists());
}

#[test]
fn only_a_lab_that_gives_addresses_and_is_no_copy_keeps_them() {
    let text = "version: 1\nname: office\nvlans: { users: { id: 10, gateway: 10.0.10.1/24, dhcp: true } }\n\
        switches: { sw1: {} }\nnodes: { pc: { kind: station, addresses: [10.0.10.9/24] } }\n\
        links: [{ endpoints: [pc, sw1], vlan: { access: users } }]\n";
    let (silent, office) = (text.replace(", dhcp: true", ""), "office".parse().unwrap());
    for (text, private_copy, is_kept) in [(text, false, true), (text, true, false), (&silent, false, false)] {
        let scene = Scene::new();
        let loaded = topology::load(text, "there/office.vnet.yaml", Path::new("/labs/there")).unwrap();
        let (text, base) = (text.to_owned(), "/labs/there".into());
        let file = TopologyFile { text, name: "there/office.vnet.yaml".into(), base, private_copy };
        let leases = Leases::new().unwrap();
        assert_eq!(leases.begin_in(Some(scene.state()), &office, &file, &loaded.plan), [""; 0]);
        leases.known().take(vec![lease(50, 60)], at(0));
        assert_eq!((scene.path().exists(), leases.remembered().len()), (is_kept, 1));
        if is_kept {
            assert!(scene.text().contains("\"file\": \"/labs/there/office.vnet.yaml\""), "{}", scene.text());
            let said = Leases::new().unwrap().begin_in(None, &office, &file, &loaded.plan);
            assert!(said[0].contains("nor HOME is set"), "{said:?}");
        }
    }
}

#[test]
fn a_clock_that_was_set_back_gives_nobody_more_than_was_left() {
    let scene = Scene::new();
    scene.controller(at(0)).0.known().take(vec![lease(50, 3600)], at(0));
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
    assert_eq!(scene.controller(long_ago).0.remembered(), [lease(50, 3600)]);
    let before_all = SystemTime::UNIX_EPOCH - Duration::from_secs(60);
    assert_eq!(scene.controller(before_all).0.remembered(), [lease(50, 3600)]);
}

#[test]
fn what_is_no_list_of_leases_is_said_and_set_aside() {
    let scene = Scene::new();
    scene.controller(at(0)).0.known().take(vec![lease(50, 3600)], at(0));
    let good = scene.text();
    assert_eq!(scene.begins_with(&good), (vec![lease(50, 3500)], vec![]));
    let many = |count: usize| {
        let one = good.split_once('[').unwrap().1.rsplit_once(']').unwrap().0;
        good.replace(one, &vec![one; count].join(","))
    };
    let long = [good.as_bytes(), &vec![b' '; 16 << 20]].concat();
    for (text, why) in [
        (b"".to_vec(), "it is no list of leases: EOF"),
        (good.as_bytes()[..good.len() / 2].to_vec(), "it is no list of leases: EOF"),
        (vec![0xff; 100], "it is no list of leases"),
        ([b"[".repeat(100_000), b"]".repeat(100_000)].concat(), "it is no list of leases"),
        (
            good.replace("\"version\": 1", "\"version\": 2").into(),
            "it is of version 2, and this vnet reads version 1",
        ),
        (b"{\"version\":0}".to_vec(), "it is of version 0"),
        (good.replace("\"vlan\": 10", "\"vlan\": 4095").into(), "VLAN 4095 is not one of 1 to 4094"),
        (good.replace("10.0.10.50", "10.0.10.500").into(), "it is no list of leases"),
        (good.replace("\"until\"", "\"since\"").into(), "unknown field `since`"),
        (good.replace("02:00", "2:00").into(), "it is no list of leases"),
        (
            good.replace("/labs/", "/others/").into(),
            "it is of another lab of this name, /others/office.vnet.yaml",
        ),
        (many(65_537).into(), "it has more than 65536 leases"),
        (long, "it has more than 16777216 bytes"),
    ] {
        let (leases, said) = scene.begins_with(&text);
        assert!(leases.is_empty() && said.len() == 1 && said[0].contains(why), "{why}: {said:?}");
        let aside = scene.path().with_extension("json.aside");
        assert!(said[0].contains(&format!("it is {} now", aside.display())), "{said:?}");
        assert_eq!((fs::read(&aside).unwrap() == text, scene.path().exists()), (true, false), "{why}");
    }
    assert_eq!(scene.begins_with(many(65_536)).0.len(), 65_536);
}

#[test]
fn what_is_no_file_is_set_aside_and_not_waited_for() {
    let scene = Scene::new();
    fs::create_dir_all(scene.path()).unwrap();
    let (leases, said) = scene.controller(at(0));
    assert!(leases.remembered().is_empty() && said[0].contains("it is no file"), "{said:?}");
    let pipe = || {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            scene.path(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
    };
    fs::remove_dir(scene.path().with_extension("json.aside")).unwrap();
    pipe().unwrap();
    let (_, said) = scene.controller(at(0));
    assert!(said[0].contains("it is no file"), "{said:?}");
    // Nor is a link followed, to be read or to be written to.
    let elsewhere = scene.folder.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    symlink(&elsewhere, scene.path()).unwrap();
    let (leases, said) = scene.controller(at(0));
    assert!(said[0].contains("it cannot be read"), "{said:?}");
    symlink(&elsewhere, scene.path().with_extension("json.new")).unwrap();
    let why = leases.known().take(vec![lease(50, 60)], at(0)).unwrap();
    assert!(why.contains("leases are kept only as long as the lab is up"), "{why}");
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
}

#[test]
fn where_nothing_can_be_written_that_is_said_once_and_the_lab_goes_on() {
    let scene = Scene::new();
    // Root may write anywhere, but not below a file.
    fs::write(scene.folder.path().join("state"), "").unwrap();
    let (leases, said) = scene.controller(at(0));
    assert!(said[0].contains("it cannot be read") && said[0].contains("cannot be moved"), "{said:?}");
    let why = leases.known().take(vec![lease(50, 60)], at(0)).unwrap();
    assert!(why.contains(&scene.path().display().to_string()), "{why}");
    assert_eq!(leases.known().take(vec![lease(50, 90)], at(10)), None, "it was said");
    assert_eq!(leases.remembered(), [lease(50, 90)], "a switch that is started again is told");
    // It can be written again, and what was not is.
    fs::remove_file(scene.folder.path().join("state")).unwrap();
    assert_eq!(leases.known().take(vec![lease(50, 90)], at(10)), None);
    assert_eq!(scene.controller(at(10)).0.remembered(), [lease(50, 90)]);
    fs::remove_dir_all(scene.state()).unwrap();
    fs::write(scene.state(), "").unwrap();
    assert!(leases.known().take(vec![lease(50, 60)], at(20)).is_some(), "another failure is said again");
}

/// A switch that answers so, one question after the other.
fn switch(answers: Vec<Reply>) -> switch::Shared {
    use std::io::Read;
    let (ours, theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        let hello = Reply::Hello { version: VERSION, pid: 7 };
        for answer in std::iter::once(hello).chain(answers) {
            let mut length = [0; 4];
            (&theirs).read_exact(&mut length).unwrap();
            let mut asked = vec![0; u32::from_le_bytes(length) as usize];
            (&theirs).read_exact(&mut asked).unwrap();
            let asked: Request = serde_json::from_slice(&asked).unwrap();
            assert!(matches!(asked, Request::Hello { .. } | Request::Kept), "{asked:?}");
            let answer = serde_json::to_vec(&answer).unwrap();
            (&theirs).write_all(&u32::try_from(answer.len()).unwrap().to_le_bytes()).unwrap();
            (&theirs).write_all(&answer).unwrap();
        }
    });
    Arc::new(Mutex::new(Client::new(ours, Duration::from_secs(20)).unwrap()))
}

#[test]
fn what_the_switch_says_is_kept_and_what_it_does_not_know_changes_nothing() {
    let scene = Scene::new();
    let (leases, _) = scene.controller(SystemTime::now());
    let says = |leases: Vec<KeptLease>, forgotten| Reply::Kept(Some(Kept { leases, forgotten }));
    let switch = switch(vec![
        says(vec![lease(50, 3600)], 2),
        Reply::Kept(None),
        Reply::Refused { why: "no".into() },
        says(vec![lease(50, 3600), lease(51, 3600)], 2),
    ]);
    let forgotten =
        "2 leases of before are forgotten: the file gives these addresses to nobody now, or to others";
    assert_eq!(leases.keep(&switch), [forgotten]);
    let kept = || scene.controller(SystemTime::now()).0.remembered().len();
    assert_eq!(kept(), 1);
    for left in [1, 1, 2] {
        assert_eq!(leases.keep(&switch), [""; 0], "it was said");
        assert_eq!((kept(), leases.remembered().len()), (left, left));
    }
    // It is gone.
    assert_eq!(leases.keep(&switch), [""; 0]);
    assert_eq!(leases.remembered().len(), 2);
}
