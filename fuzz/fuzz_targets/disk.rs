//! Parses the description of a disk, or rejects it with a message of one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rtftp_core::config::disk::{DiskConfig, MountSource};

fuzz_target!(|json: &[u8]| match DiskConfig::parse(json) {
    Ok(config) => {
        assert_eq!(config.mounts.first().map(|mount| mount.mountpoint.as_str()), Some("/"));
        for mount in &config.mounts {
            assert!(mount.mountpoint.starts_with('/') && !mount.mountpoint.contains("/../"));
            assert_ne!(mount.source, MountSource::Partition(0));
            let subvolume = mount.subvolume.as_deref().unwrap_or("/");
            assert!(subvolume.starts_with('/') && !subvolume.contains("/../"));
        }
        assert!(config.tftp_root.starts_with('/') && !config.tftp_root.contains("/../"));
    }
    Err(error) => {
        let message = error.to_string();
        assert!(!message.is_empty() && !message.contains('\n'), "{message}");
    }
});
