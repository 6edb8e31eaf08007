//! Gives the shared library its name for the dynamic linker: the ABI only grows within one soname.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Tests and the Rust library do not get the argument: it is for the shared object alone.
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libi2psock.so.0");
    }
}
