//! The status page: a single file that requests `/boots.json` every second.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use super::response::Response;

/// The page. Its style and script elements contain [`NONCE`].
const PAGE: &str = include_str!("page.html");
/// The placeholder for the nonce of a response.
const NONCE: &str = "{nonce}";

/// Returns the response to `/`. Its policy allows the script and the style of the page only.
pub(super) fn response() -> Response {
    let nonce = nonce();
    let page = PAGE.replace(NONCE, &nonce).into_bytes();
    let policy = format!(
        "style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'"
    );
    Response::new("text/html; charset=utf-8", Arc::new(page)).with_policy(&policy)
}

/// Returns 128 unpredictable bits in hexadecimal, from the random keys of the standard library's hash maps.
fn nonce() -> String {
    let random = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_only_the_style_and_script_of_the_page() {
        let (response, other) = (super::response(), super::response());
        let page = String::from_utf8(response.body.to_vec()).expect("UTF-8");
        let nonce = page.split("<style nonce=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a nonce");
        assert_eq!(nonce.len(), 32);
        assert_eq!(page.matches(nonce).count(), 2, "the style and the script");
        assert_eq!(response.head().matches(&format!("'nonce-{nonce}'")).count(), 2);
        assert!(!other.head().contains(nonce), "each response has its own nonce");
        assert!(!page.contains(NONCE));
    }

    /// Names from the network must not become part of the markup, and the page must not load anything.
    #[test]
    fn the_page_uses_no_markup_from_strings_and_no_other_resources() {
        for word in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " src=", "http:", "https:"]
        {
            assert!(!PAGE.contains(word), "`{word}` in the page");
        }
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="), "the policy forbids attributes");
    }
}
