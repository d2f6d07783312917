//! The guide to troubleshooting explains every message of the server: errors, and warnings in the log.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The types whose `Display` is only a part of messages.
const PARTS: [&str; 5] = ["EscapedName", "Origin", "Suffix", "Object", "ClientName"];
/// The names of files and directories without messages of the server: tests, `rtftp-get`, and wrong arguments, which lead to the help.
const OTHERS: [&str; 5] = ["tests", "fake", "client", "get", "cli"];

/// Returns the Rust files of the server below a directory.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path());
    let is_other = |path: &Path| OTHERS.iter().any(|name| path.file_stem().is_some_and(|stem| stem == *name));
    let below = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    entries
        .filter(|path| !is_other(path))
        .flat_map(below)
        .filter(|path| path.extension() == Some("rs".as_ref()))
        .collect()
}

/// Returns the string literals in some source code.
fn literals(stream: TokenStream) -> Vec<String> {
    let literal = |tree: TokenTree| match tree {
        // Comments are attributes.
        TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket => vec![],
        TokenTree::Group(group) => literals(group.stream()),
        TokenTree::Literal(literal) => {
            let source = literal.to_string();
            let lines = source.trim_matches('"').split("\\\n").map(str::trim_start);
            // The first line may begin with blanks on purpose, but no message does.
            source.starts_with('"').then(|| lines.collect::<String>().replace("\\\"", "\"")).into_iter().collect()
        }
        _ => vec![],
    };
    stream.into_iter().flat_map(literal).collect()
}

/// Returns the messages in some source code: the literals in `impl Display`, in `fn to_client`, `failed(..)` and
/// `ErrorReply::new(..)` for clients, and in `log::warn!`, `log::error!`.
fn messages(stream: TokenStream) -> Vec<String> {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let mut found = vec![];
    for (index, tree) in trees.iter().enumerate() {
        let TokenTree::Group(group) = tree else { continue };
        let before = |count: usize| index.checked_sub(count).map_or_else(String::new, |at| trees[at].to_string());
        let is_braced = group.delimiter() == Delimiter::Brace;
        // Up to the end of the item before.
        let item = trees[..index].iter().rev().take_while(|tree| match tree {
            TokenTree::Group(group) => group.delimiter() != Delimiter::Brace,
            tree => tree.to_string() != ";",
        });
        let mut item: Vec<String> = item.map(ToString::to_string).collect();
        item.reverse();
        let has = |words: &[&str]| item.windows(words.len()).any(|found| found == words);
        let is_log = before(1) == "!" && before(5) == "log" && matches!(&*before(2), "warn" | "error");
        let is_display = is_braced && has(&["Display", "for"]) && !PARTS.iter().any(|name| has(&["for", name]));
        let is_reply = before(1) == "failed" || before(1) == "new" && before(4) == "ErrorReply";
        let is_test = item.contains(&"mod".to_owned()) && item.contains(&"tests".to_owned());
        if is_log || is_reply || is_display || is_braced && has(&["fn", "to_client"]) {
            found.extend(literals(group.stream()));
        } else if !is_test {
            found.extend(messages(group.stream()));
        }
    }
    found
}

/// Returns the first part of a message that is always the same, up to its first punctuation; `None` if there is none.
fn beginning(message: &str) -> Option<&str> {
    let mut fixed =
        message.split(['{', '}']).step_by(2).flat_map(|part| part.split([':', ';', '(', '"'])).map(str::trim);
    fixed.find(|part| part.len() >= 8)
}

#[test]
fn guide_explains_every_message_of_the_server() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let guide = fs::read_to_string(root.join("bins/docs/troubleshooting.md")).expect("the guide");
    let guide = guide.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut count, mut missing) = (0, vec![]);
    for directory in ["core/src/wire", "runtime-std/src", "bins/guestfs/src", "bins/src"] {
        for path in sources(&root.join(directory)) {
            let source = fs::read_to_string(&path).expect("a source file");
            let source = TokenStream::from_str(&source).expect("Rust");
            for message in messages(source) {
                let Some(beginning) = beginning(&message) else { continue };
                count += 1;
                if !guide.contains(beginning) {
                    missing.push(format!("{}: {beginning}", path.strip_prefix(root).expect("below").display()));
                }
            }
        }
    }
    assert!(count > 80, "only {count} messages were found");
    assert!(
        missing.is_empty(),
        "bins/docs/troubleshooting.md lacks {} of {count}:\n{}",
        missing.len(),
        missing.join("\n")
    );
}
