//! The boots in a journal, for programs that evaluate them. The server need not run.

use std::{collections::HashMap, io, path::Path};

use serde::Serialize;

use super::{super::snapshot::Boot, files, line::AnyLine};

/// A boot of a client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PastBoot {
    /// The address of the client.
    pub client: String,
    /// The boot. Of requests that clients never answered, some may be missing.
    #[serde(flatten)]
    pub boot: Boot,
}

/// Reads the boots that were recorded in a directory and ended after a time in seconds since 1970, the oldest first.
///
/// # Errors
///
/// There is no journal, or it cannot be read.
pub fn boots_since(directory: &Path, since: f64) -> io::Result<Vec<PastBoot>> {
    // In microseconds, which distinguish the boots of a client.
    let mut boots: HashMap<(String, u64), Boot> = HashMap::new();
    files::read(directory, |line| {
        let line = match line {
            Some(AnyLine::Finished(line)) => line,
            Some(AnyLine::Mount(line)) => {
                let boot = boots.get_mut(&(line.client, (line.boot * 1e6).round() as u64));
                boot.into_iter().for_each(|boot| boot.mount = Some(line.mount.clone()));
                return;
            }
            None => return,
        };
        let (client, file) = (line.event.client, line.event.file);
        let last = line.seen.unwrap_or(file.began + file.seconds).max(file.began);
        let key = (client, (line.boot * 1e6).round() as u64);
        let boot = boots.entry(key).or_insert(Boot { began: line.boot, last, more: 0, files: vec![], mount: None });
        boot.last = boot.last.max(last);
        boot.files.push(file);
    })?;
    let past = boots.into_iter().filter(|(_, boot)| boot.last >= since);
    let mut past: Vec<_> = past.map(|((client, _), boot)| PastBoot { client, boot }).collect();
    past.sort_by(|a, b| a.boot.began.total_cmp(&b.boot.began).then_with(|| a.client.cmp(&b.client)));
    for PastBoot { boot, .. } in &mut past {
        boot.files.sort_by(|a, b| a.began.total_cmp(&b.began));
    }
    Ok(past)
}
