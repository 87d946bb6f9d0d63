//! Who holds a lab's folder: taken by one process at a time, made and removed so that nobody ever sees half of one.

use super::{
    made,
    name::LabName,
    rundir::{ASIDE, LOCK, LabDir, MARK, Runtime, bears_mark, must_be_private, put_mark, unusable},
};
use crate::failure::{Context, Exit, Failure};
use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, open, renameat_with},
    io::Errno,
};
use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How often a lock is tried: whoever only looks whether it is held (`ls`) holds it for an instant.
const TRIES: usize = 5;

/// How long to wait between tries.
const INSTANT: Duration = Duration::from_millis(2);

/// Why a lab's folder could not be taken.
#[derive(Debug)]
pub enum ClaimError {
    /// A controller lives there.
    Held,
    /// The folder cannot be used.
    Unusable(Failure),
}

impl From<Failure> for ClaimError {
    fn from(failure: Failure) -> Self {
        Self::Unusable(failure)
    }
}

/// A lab's folder, held by this process until it ends, even by `kill -9`.
#[derive(Debug)]
pub struct Claim {
    dir: LabDir,
    _lock: OwnedFd,
}

impl Runtime {
    /// Takes the folder of `lab`, made if there is none: as long as the [`Claim`] lives, nobody else can.
    ///
    /// # Errors
    /// Somebody else holds it ([`ClaimError::Held`]), or it cannot be made, or is not ours.
    pub fn claim(&self, lab: &LabName) -> Result<Claim, ClaimError> {
        let dir = self.lab(lab);
        loop {
            self.make()?;
            if let Some(claim) = take(&dir)? {
                return Ok(claim);
            }
            if let Some(claim) = self.make_lab(&dir)? {
                return Ok(claim);
            }
        }
    }

    /// Makes a lab's folder aside, marked and held, and moves it into place in one step; none if somebody was faster.
    fn make_lab(&self, dir: &LabDir) -> Result<Option<Claim>, ClaimError> {
        let mut aside = tempfile::Builder::new();
        aside.prefix(ASIDE).permissions(fs::Permissions::from_mode(0o700));
        let aside = match aside.tempdir_in(self.path()) {
            Ok(aside) => aside,
            // The last lab went, and the folder of all with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(self.path(), &error).into()),
        };
        put_mark(aside.path(), MARK).map_err(|error| unusable(aside.path(), &error))?;
        let Some(lock) = lock(aside.path())? else { return Ok(None) };
        match renameat_with(CWD, aside.path(), CWD, dir.path(), RenameFlags::NOREPLACE) {
            Ok(()) => {
                let _moved = aside.keep();
                Ok(Some(Claim { dir: dir.clone(), _lock: lock }))
            }
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(unusable(dir.path(), &error.into()).into()),
        }
    }

    /// Removes folders that were left in the making or in removal by a process that was killed.
    pub(super) fn sweep(&self) {
        let entries = fs::read_dir(self.path()).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE)) {
            let left = entry.path();
            // Who lives holds its lock.
            if bears_mark(&left, MARK) && matches!(lock(&left), Ok(Some(_))) {
                remove_empty(&left);
            }
        }
    }
}

impl LabDir {
    /// Whether a controller holds the folder now. Nothing is written.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn is_held(&self) -> Result<bool, Failure> {
        let path = self.path().join(LOCK);
        let file = match open(&path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(unusable(&path, &error.into())),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(unusable(&path, &error.into())),
        }
    }
}

impl Claim {
    /// The folder.
    pub fn dir(&self) -> &LabDir {
        &self.dir
    }

    /// Removes what vnet made in the folder and the lab's sockets elsewhere, then the folder itself, and gives it up.
    /// With anything in it that vnet did not make, the folder stays, and that is what is returned.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<Vec<PathBuf>, Failure> {
        let cannot = || format!("{} cannot be removed", self.dir.path().display());
        self.dir.remove_sockets_elsewhere();
        self.dir.remove_namespaces()?;
        let foreign = made::remove(self.dir.path()).context("run-directory", cannot)?;
        if !foreign.is_empty() {
            // Without a lock it is no lab's; the mark lets the next lab of this name live there.
            fs::remove_file(self.dir.path().join(LOCK)).context("run-directory", cannot)?;
            return Ok(foreign);
        }
        // Out of the way first: whoever wants a lab of this name now makes a new folder, and none in removal.
        let name = self.dir.path().file_name().unwrap_or_default().to_string_lossy();
        let aside = self.dir.path().with_file_name(format!("{ASIDE}{name}-{}", std::process::id()));
        fs::rename(self.dir.path(), &aside).context("run-directory", cannot)?;
        remove_empty(&aside);
        Ok(vec![])
    }
}

/// Removes a folder that has nothing but lock and mark.
fn remove_empty(folder: &Path) {
    // With anything else in it the folder stays: it is aside, and in nobody's way.
    let _ = fs::remove_file(folder.join(LOCK));
    let _ = fs::remove_file(folder.join(MARK));
    let _ = fs::remove_dir(folder);
}

/// Takes a lab's folder; none if there is none.
fn take(dir: &LabDir) -> Result<Option<Claim>, ClaimError> {
    match fs::symlink_metadata(dir.path()) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(dir.path(), &error).into()),
    }
    let ours = must_be_private(dir.path()).and_then(|()| must_be_marked(dir));
    match (ours, dir.path().exists()) {
        (Ok(()), _) => Ok(lock(dir.path())?.map(|lock| Claim { dir: dir.clone(), _lock: lock })),
        // It went while we looked.
        (Err(_), false) => Ok(None),
        (Err(failure), true) => Err(failure.into()),
    }
}

/// A folder that vnet made; any other is not touched.
fn must_be_marked(dir: &LabDir) -> Result<(), Failure> {
    if bears_mark(dir.path(), MARK) {
        return Ok(());
    }
    let text = format!("{} is there, and vnet did not make it: it is left alone", dir.path().display());
    Err(Failure::new(Exit::Busy, "not-a-lab", text)
        .mend("give the lab another name (--name), or set VNET_RUNTIME_DIR"))
}

/// Locks a folder; none if it vanished meanwhile.
fn lock(folder: &Path) -> Result<Option<OwnedFd>, ClaimError> {
    let path = folder.join(LOCK);
    let failed = |error: Errno| ClaimError::from(unusable(&path, &error.into()));
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match open(&path, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut tries = (0..TRIES).map(|place| {
        if place > 0 {
            thread::sleep(INSTANT);
        }
        flock(&file, FlockOperation::NonBlockingLockExclusive)
    });
    match tries.find(|tried| *tried != Err(Errno::WOULDBLOCK)) {
        Some(Ok(())) => {}
        None => return Err(ClaimError::Held),
        Some(Err(error)) => return Err(failed(error)),
    }
    // Whoever held it before may have removed the folder between our open and our lock: then this lock is on a file
    // that has no name any more.
    let ours = fstat(&file).map_err(failed)?;
    let named = fs::symlink_metadata(&path);
    let same = named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.st_dev, ours.st_ino));
    Ok(same.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::super::sockets::listen;
    use super::*;
    use std::os::unix::fs::{DirBuilderExt, symlink};

    fn runtime() -> (tempfile::TempDir, Runtime) {
        let base = tempfile::tempdir().unwrap();
        let runtime = Runtime::at(&base.path().join("vnet"));
        (base, runtime)
    }

    fn office() -> LabName {
        "office".parse().unwrap()
    }

    fn private(path: &Path) {
        fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    }

    #[test]
    fn a_lab_is_held_by_one_and_vanishes_when_it_is_removed() {
        let (_base, runtime) = runtime();
        let claim = runtime.claim(&office()).unwrap();
        assert!(runtime.lab(&office()).is_held().unwrap());
        assert!(matches!(runtime.claim(&office()), Err(ClaimError::Held)));
        assert_eq!(runtime.labs().unwrap(), [office()]);
        assert_eq!(claim.remove().unwrap(), [""; 0].map(PathBuf::from));
        assert_eq!(runtime.labs().unwrap(), []);
        runtime.remove_if_empty();
        assert!(!runtime.path().exists());
    }

    #[test]
    fn a_claim_ends_with_its_holder_and_leaves_the_folder_orphaned() {
        let (_base, runtime) = runtime();
        drop(runtime.claim(&office()).unwrap());
        assert!(!runtime.lab(&office()).is_held().unwrap());
        assert_eq!(runtime.labs().unwrap(), [office()]);
        assert!(runtime.claim(&office()).is_ok());
    }

    #[test]
    fn a_folder_that_vnet_did_not_make_is_not_listed_not_taken_and_not_touched() {
        let (_base, runtime) = runtime();
        private(runtime.path());
        let foreign = runtime.lab(&office());
        private(foreign.path());
        fs::write(foreign.path().join("precious"), "").unwrap();
        // Neither a lock nor another's mark makes it ours.
        fs::write(foreign.path().join(LOCK), "").unwrap();
        fs::write(foreign.path().join(MARK), "mine\n").unwrap();
        assert_eq!(runtime.labs().unwrap(), []);
        assert!(matches!(runtime.claim(&office()), Err(ClaimError::Unusable(f)) if f.code == "not-a-lab"));
        runtime.remove_if_empty();
        assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 3);
    }

    #[test]
    fn looking_writes_nothing() {
        let (_base, runtime) = runtime();
        private(runtime.path());
        private(&runtime.path().join(".ssh"));
        private(runtime.lab(&office()).path());
        assert_eq!(runtime.labs().unwrap(), []);
        assert!(!runtime.lab(&office()).is_held().unwrap());
        for folder in [runtime.path().join(".ssh"), runtime.lab(&office()).path().to_owned()] {
            assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_others_put_into_a_lab_stays_with_its_folder_and_the_next_lab_lives_beside_it() {
        let (_base, runtime) = runtime();
        for _round in 0..2 {
            let claim = runtime.claim(&office()).unwrap();
            let notes = claim.dir().path().join("notes");
            fs::write(&notes, "precious").unwrap();
            assert_eq!(claim.remove().unwrap(), std::slice::from_ref(&notes));
            assert_eq!(fs::read_to_string(&notes).unwrap(), "precious");
            assert_eq!(runtime.labs().unwrap(), [], "it is no lab any more");
            runtime.remove_if_empty();
        }
        assert_eq!(runtime.lab(&office()).foreign().len(), 1);
    }

    #[test]
    fn the_folder_of_all_labs_goes_only_if_vnet_made_it() {
        let (_base, runtime) = runtime();
        private(runtime.path());
        runtime.claim(&office()).unwrap().remove().unwrap();
        runtime.remove_if_empty();
        assert!(runtime.path().exists(), "it is the user's own");
        fs::remove_dir(runtime.path()).unwrap();
        runtime.claim(&office()).unwrap().remove().unwrap();
        fs::write(runtime.path().join("precious"), "").unwrap();
        runtime.remove_if_empty();
        assert!(runtime.path().exists(), "something of the user's is in it");
        fs::remove_file(runtime.path().join("precious")).unwrap();
        runtime.remove_if_empty();
        assert!(!runtime.path().exists());
    }

    #[test]
    fn what_a_killed_process_left_aside_is_swept_and_what_a_living_one_makes_is_not() {
        let (_base, runtime) = runtime();
        runtime.make().unwrap();
        let [left, living, foreign] =
            ["left", "living", "foreign"].map(|name| runtime.path().join(format!("{ASIDE}{name}")));
        [&left, &living, &foreign].into_iter().for_each(|path| private(path));
        put_mark(&left, MARK).unwrap();
        put_mark(&living, MARK).unwrap();
        let _held = lock(&living).unwrap();
        runtime.remove_if_empty();
        assert_eq!([left, living, foreign].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn a_folder_that_others_prepared_is_refused() {
        let (base, runtime) = runtime();
        let refusal = || match runtime.claim(&office()) {
            Err(ClaimError::Unusable(failure)) => failure.message,
            other => panic!("{other:?}"),
        };
        let elsewhere = base.path().join("elsewhere");
        private(&elsewhere);
        symlink(&elsewhere, runtime.path()).unwrap();
        assert!(refusal().contains("symbolic link"));
        fs::remove_file(runtime.path()).unwrap();
        fs::create_dir(runtime.path()).unwrap();
        fs::set_permissions(runtime.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(refusal().contains("0700"));
    }

    #[test]
    fn a_socket_elsewhere_goes_with_the_folder_unless_somebody_listens_there() {
        let (base, runtime) = runtime();
        let claim = runtime.claim(&office()).unwrap();
        let [stale, living] = ["stale.sock", "living.sock"].map(|name| base.path().join(name));
        for path in [&stale, &living] {
            claim.dir().note_socket(path).unwrap();
        }
        drop(listen(&stale).unwrap());
        let _listener = listen(&living).unwrap();
        claim.remove().unwrap();
        assert!(!stale.exists() && living.exists());
    }
}
