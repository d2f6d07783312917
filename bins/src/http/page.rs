//! The page for people: one file that needs nothing else, and asks for `/boots.json` every second.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::response::Response;

/// The page. Its style and its script carry the word [`NONCE`].
const PAGE: &str = include_str!("page.html");
/// What stands in the page for the nonce of an answer.
const NONCE: &str = "{nonce}";

/// The answer to `/`. A browser runs the script and the style that are in it, and no others.
pub(super) fn response() -> Response {
    let nonce = nonce();
    let page = PAGE.replace(NONCE, &nonce).into_bytes();
    let policy = format!(
        "style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'"
    );
    Response::new("text/html; charset=utf-8", Arc::new(page)).allowing(&policy)
}

/// A word that nobody can guess: of the keys that the standard library seeds its maps with.
fn nonce() -> String {
    let word = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_style_and_the_script_of_the_page_are_allowed() {
        let (answer, other) = (response(), response());
        let page = String::from_utf8(answer.body.to_vec()).expect("UTF-8");
        let nonce = page.split("<style nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce");
        assert_eq!(nonce.len(), 32);
        assert_eq!(page.matches(nonce).count(), 2, "the style and the script");
        assert_eq!(answer.head().matches(&format!("'nonce-{nonce}'")).count(), 2);
        assert!(!other.head().contains(nonce), "each answer has its own");
        assert!(!page.contains(NONCE));
    }

    /// What a client has named must not become a part of the page, and the page must not need anything else.
    #[test]
    fn the_page_takes_text_as_text_and_stands_alone() {
        for word in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " src=", "http:", "https:"]
        {
            assert!(!PAGE.contains(word), "`{word}` in the page");
        }
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="), "the policy forbids attributes");
    }
}
