//! A folder of key files.
use crate::error::{Error, Result};
use crate::keys::Keys;
/// Stub until the real one is merged.
pub struct Store(std::path::PathBuf);
/// Stub.
pub struct Claim(std::path::PathBuf);
/// Stub.
pub fn check_name(name: &str) -> Result<()> {
    if name.contains('/') {
        return Err(Error::invalid("name"));
    }
    Ok(())
}
impl Store {
    /// Stub.
    pub fn new(folder: &str) -> Result<Self> {
        Ok(Store(folder.into()))
    }
    /// Stub.
    pub fn lock(&self, name: &str) -> Result<Claim> {
        Ok(Claim(self.0.join(format!("{name}.dat"))))
    }
}
impl Claim {
    /// Stub.
    pub fn load(&self) -> Result<Option<Keys>> {
        match std::fs::read(&self.0) {
            Ok(bytes) => Keys::from_bytes(&bytes).map(Some),
            Err(_) => Ok(None),
        }
    }
    /// Stub.
    pub fn save(&self, keys: &Keys) -> Result<()> {
        std::fs::create_dir_all(self.0.parent().unwrap_or(&self.0)).ok();
        std::fs::write(&self.0, keys.bytes()).map_err(|e| Error::io(crate::error::Operation::Create, "w", &e))
    }
    /// Stub.
    pub fn abandon(&self) {}
}
