//! E-mail addresses, by which accounts are found. Addresses that cannot be mailed are refused, and
//! each mailbox has one spelling.

use email_address::{EmailAddress, Options};

use super::AccountError;

/// Longest local part and longest whole address, in bytes (RFC 5321, 4.5.3.1).
const LONGEST_LOCAL: usize = 64;
const LONGEST: usize = 254;

/// The address in lower case, its domain in ASCII. Local parts must be ASCII: few servers accept
/// others.
pub fn normalised(text: &str) -> Result<String, AccountError> {
    let refuse =
        || AccountError::Email(text.chars().filter(|c| !c.is_control()).take(100).collect());
    let (local, domain) = text.trim().rsplit_once('@').ok_or_else(refuse)?;
    let local = local.to_lowercase();
    let domain = idna::domain_to_ascii_strict(domain).map_err(|_| refuse())?;
    let email = format!("{local}@{domain}");
    let options = Options::default()
        .with_required_tld()
        .without_domain_literal()
        .without_display_text();
    let plausible = local.is_ascii()
        && local.len() <= LONGEST_LOCAL
        && email.len() <= LONGEST
        && !local.contains('"')
        && !domain
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        && EmailAddress::parse_with_options(&email, options).is_ok();
    if plausible { Ok(email) } else { Err(refuse()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn email_addresses_are_checked_and_normalised() {
        for (text, email) in [
            (" Ada@Example.ORG ", "ada@example.org"),
            ("a@ü.de", "a@xn--tda.de"),
            ("a@xn--tda.de", "a@xn--tda.de"),
            ("a+tag@example.org", "a+tag@example.org"),
            ("o'neil@example.co.uk", "o'neil@example.co.uk"),
        ] {
            assert_eq!(normalised(text).unwrap(), email, "{text}");
        }
        let long = format!("{}@example.org", "a".repeat(70));
        for bad in [
            "",
            "a",
            "a@b",
            "@b.c",
            "a@",
            "a b@c.d",
            "a@b.c, x@y.z",
            "a@.c",
            "a@b@c.d",
            "<a@b.c>",
            "a@b.c\r\nBcc: x",
            "a..b@example.org",
            ".a@example.org",
            "a.@example.org",
            "a@-example.org",
            "a@example-.org",
            "a@exa mple.org",
            "ä@example.org",
            "a@1.2.3.4",
            "a@[127.0.0.1]",
            "\"a b\"@example.org",
            "a@example..org",
            "a\0@example.org",
            long.as_str(),
        ] {
            assert!(normalised(bad).is_err(), "{bad:?}");
        }
    }
}
