//! The folder of built images, `$XDG_CACHE_HOME/vnet/images`: complete ones only, each built by one process at a time.

use super::{Image, ImageError, Manifest, Name, Progress, assemble};
use rustix::fs::{FlockOperation, flock};
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The folder of images.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The user's, made if it is not there.
    pub(super) fn open() -> Result<Self, ImageError> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        Self::at(base.ok_or(ImageError::NoCache)?.join("vnet/images"))
    }

    fn at(folder: PathBuf) -> Result<Self, ImageError> {
        fs::create_dir_all(&folder).map_err(|e| ImageError::io(&folder, e))?;
        Ok(Self { folder })
    }

    /// The newest image of this name that this program's recipe makes, built first if there is none.
    pub(super) fn ensure(&self, name: Name, progress: &mut dyn FnMut(Progress)) -> Result<Image, ImageError> {
        if let Some(image) = self.find(name)? {
            return Ok(image);
        }
        let _lock = self.lock(name, progress)?;
        match self.find(name)? {
            Some(image) => Ok(image),
            None => self.build_locked(name, progress),
        }
    }

    /// A new image of this name.
    pub(super) fn build(&self, name: Name, progress: &mut dyn FnMut(Progress)) -> Result<Image, ImageError> {
        let _lock = self.lock(name, progress)?;
        self.build_locked(name, progress)
    }

    /// The newest image of this name that this program's recipe makes.
    pub(super) fn find(&self, name: Name) -> Result<Option<Image>, ImageError> {
        let recipe = assemble::recipe();
        let images = self.list()?.into_iter();
        let mut ours: Vec<_> =
            images.filter(|i| i.manifest.name == name.as_str() && i.manifest.recipe == recipe).collect();
        ours.sort_by_key(|i| fs::metadata(&i.folder).and_then(|m| m.modified()).ok());
        Ok(ours.pop())
    }

    /// Held until it is dropped; the kernel drops it if this process dies.
    fn lock(&self, name: Name, progress: &mut dyn FnMut(Progress)) -> Result<File, ImageError> {
        let path = self.folder.join(format!(".{}.lock", name.as_str()));
        let file = File::create(&path).map_err(|e| ImageError::io(&path, e))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            progress(Progress::Waiting);
            flock(&file, FlockOperation::LockExclusive).map_err(|e| ImageError::io(&path, e.into()))?;
        }
        Ok(file)
    }

    /// Builds aside and moves the finished folder into place in one step: nobody sees half an image.
    fn build_locked(&self, name: Name, progress: &mut dyn FnMut(Progress)) -> Result<Image, ImageError> {
        self.sweep();
        let aside = tempfile::Builder::new().prefix(".build-").tempdir_in(&self.folder);
        let aside = aside.map_err(|e| ImageError::io(&self.folder, e))?;
        let image = aside.path().join("image");
        fs::create_dir(&image).map_err(|e| ImageError::io(&image, e))?;
        let manifest = assemble::debian(name, aside.path(), &image, progress)?;
        let path = image.join("manifest.json");
        let json = serde_json::to_vec_pretty(&manifest).expect("a manifest is strings and numbers");
        fs::write(&path, json).map_err(|e| ImageError::io(&path, e))?;

        let folder = self.folder.join(format!("{}-{}-{}", manifest.name, manifest.kernel, manifest.recipe));
        let old = aside.path().join("old");
        match fs::rename(&folder, &old) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(ImageError::io(&folder, e)),
            _ => fs::rename(&image, &folder).map_err(|e| ImageError::io(&folder, e))?,
        }
        Ok(Image { folder, manifest })
    }

    /// Removes what builds left that were killed. Only the holder of the lock may.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(".build-")) {
            // What cannot be removed is only in the way of the disk, not of the build.
            let _ = fs::remove_dir_all(entry.path());
        }
    }

    /// The complete images. A folder that holds none (damaged, of another version) is passed over.
    pub(super) fn list(&self) -> Result<Vec<Image>, ImageError> {
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| ImageError::io(&self.folder, e))? {
            let folder = entry.map_err(|e| ImageError::io(&self.folder, e))?.path();
            if !folder.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.')) {
                images.extend(read(folder));
            }
        }
        images.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(images)
    }

    /// Removes the images with this name or folder name.
    pub(super) fn remove(&self, name: &str) -> Result<Vec<Image>, ImageError> {
        let mut images = self.list()?;
        images.retain(|i| i.manifest.name == name || i.folder.file_name().is_some_and(|n| n == name));
        if images.is_empty() {
            return Err(ImageError::NotCached(name.to_owned()));
        }
        for Image { folder, .. } in &images {
            fs::remove_dir_all(folder).map_err(|e| ImageError::io(folder, e))?;
        }
        Ok(images)
    }
}

fn read(folder: PathBuf) -> Option<Image> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(folder.join("manifest.json")).ok()?).ok()?;
    let complete = |path: &Path| path.is_file();
    let image = Image { folder, manifest };
    (complete(&image.kernel()) && complete(&image.initrd())).then_some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Cache, folder: &str, recipe: &str) {
        let folder = cache.folder.join(folder);
        fs::create_dir(&folder).unwrap();
        let manifest = Manifest {
            name: "debian".into(),
            kernel: "6.1.0-1-cloud-amd64".into(),
            recipe: recipe.into(),
            packages: vec![],
            bytes: 2,
        };
        fs::write(folder.join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
        fs::write(folder.join("vmlinuz"), "k").unwrap();
        fs::write(folder.join("initrd"), "i").unwrap();
    }

    #[test]
    fn an_image_of_this_recipe_is_used_without_building() {
        let home = tempfile::tempdir().unwrap();
        let cache = Cache::at(home.path().join("images")).unwrap();
        put(&cache, "debian-other", "0000000000000000");
        put(&cache, "debian-ours", &assemble::recipe());
        put(&cache, "debian-torn", &assemble::recipe());
        fs::remove_file(cache.folder.join("debian-torn/initrd")).unwrap();

        let image = cache.ensure(Name::Debian, &mut |step| panic!("{step:?}: the cache has it")).unwrap();
        assert!(image.folder.ends_with("debian-ours"));
        assert_eq!(cache.list().unwrap().len(), 2, "the torn one is none");
        assert_eq!(cache.remove("debian-ours").unwrap().len(), 1);
        assert_eq!(cache.remove("debian").unwrap().len(), 1);
        assert!(matches!(cache.remove("debian"), Err(ImageError::NotCached(_))));
    }
}
