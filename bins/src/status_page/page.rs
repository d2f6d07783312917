//! The status page: one document with its style and its script, which receives `/events`.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, LazyLock},
};

use super::response::Response;

/// The page. Its style and script elements contain [`NONCE`].
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let style = include_str!("page/style.css");
    let script = concat!(
        include_str!("page/format.js"),
        include_str!("page/board.js"),
        include_str!("page/rows.js"),
        include_str!("page/app.js"),
    );
    include_str!("page/page.html").replace("{style}", style).replace("{script}", script)
});
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
        assert!(!PAGE.contains("{style}") && !PAGE.contains("{script}"));
        for word in ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", " src=", "http:", "https:"]
        {
            assert!(!PAGE.contains(word), "`{word}` in the page");
        }
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="), "the policy forbids attributes");
    }
}
