//! Key files and the folder they are kept in.

pub mod key_file;
mod key_store;

pub use key_file::{load, save, Format};
pub use key_store::{check_name, default_folder, KeyStore, NameLock};
