//! Key files and the folder they are kept in; this is disk access only, which knows neither bridge nor destinations.

pub(crate) mod key_file;
mod key_store;
mod stamp;

pub use key_file::{load, save, Format};
pub(crate) use key_store::NameLock;
pub use key_store::{check_name, default_folder, KeyStore};
