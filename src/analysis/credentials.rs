//! What a Secret holds for asking somebody: a token, or a name and a password, and whom to trust.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use std::collections::BTreeMap;

/// Credentials of a Secret. Their values are never printed.
#[derive(Clone, Default)]
pub struct Credentials {
    pub(super) authorization: Option<HeaderValue>,
    /// Certificates to trust instead of the system's, as DER.
    pub(super) roots: Option<Vec<Vec<u8>>>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let has = (self.authorization.is_some(), self.roots.is_some());
        write!(f, "Credentials {{ authorization: {}, roots: {} }}", has.0, has.1)
    }
}

/// A Secret that holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// It has none of the keys.
    #[error("it has none of bearerToken, username with password, and ca.crt")]
    Nothing,
    /// A name without a password, or the other way round.
    #[error("it has {0} and not {1}")]
    Half(&'static str, &'static str),
    /// Both ways at once.
    #[error("it has both bearerToken and username; which of them is meant?")]
    Both,
    /// A value that no header can hold.
    #[error("its {0} holds characters that no header may")]
    NoHeader(&'static str),
    /// `ca.crt` that is none.
    #[error("its ca.crt holds no certificate in PEM")]
    NoCertificate,
}

impl Credentials {
    /// Reads the `data` of a Secret, decoded.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, CredentialsError> {
        let text = |key: &'static str| {
            let value = data.get(key).filter(|value| !value.is_empty());
            value.map(|v| std::str::from_utf8(v).map_err(|_| CredentialsError::NoHeader(key))).transpose()
        };
        // A file that was put into a Secret ends in a line break, which belongs to no token.
        let trimmed = |key: &'static str| Ok(text(key)?.map(|v| v.trim_end_matches(['\r', '\n'])));
        let header = |key: &'static str, value: String| {
            let mut value = HeaderValue::try_from(value).map_err(|_| CredentialsError::NoHeader(key))?;
            value.set_sensitive(true);
            Ok(Some(value))
        };
        let authorization = match (trimmed("bearerToken")?, trimmed("username")?, trimmed("password")?) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => return Err(CredentialsError::Both),
            (Some(token), None, None) => header("bearerToken", format!("Bearer {token}"))?,
            (None, Some(name), Some(word)) => {
                header("password", format!("Basic {}", STANDARD.encode(format!("{name}:{word}"))))?
            }
            (None, Some(_), None) => return Err(CredentialsError::Half("username", "password")),
            (None, None, Some(_)) => return Err(CredentialsError::Half("password", "username")),
            (None, None, None) => None,
        };
        let roots = text("ca.crt")?.map(certificates).transpose()?;
        if authorization.is_none() && roots.is_none() {
            return Err(CredentialsError::Nothing);
        }
        Ok(Credentials { authorization, roots })
    }
}

/// The certificates of a PEM text, as DER.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>, CredentialsError> {
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let one = |part: &str| {
        let body: String = part.split_once(end)?.0.split_whitespace().collect();
        STANDARD.decode(body).ok().filter(|der| !der.is_empty())
    };
    let found: Option<Vec<Vec<u8>>> = text.split(begin).skip(1).map(one).collect();
    found.filter(|found| !found.is_empty()).ok_or(CredentialsError::NoCertificate)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Credentials, CredentialsError> {
        let data = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        Credentials::from_secret(&data)
    }

    #[test]
    fn secrets_are_read_and_not_printed() {
        let header =
            |pairs: &[(&str, &str)]| of(pairs).unwrap().authorization.unwrap().to_str().unwrap().to_owned();
        assert_eq!(header(&[("bearerToken", "abc\n")]), "Bearer abc");
        assert_eq!(header(&[("username", "u"), ("password", "p:q")]), "Basic dTpwOnE=");
        let both = of(&[("bearerToken", "geheim"), ("other", "x")]).unwrap();
        assert!(!format!("{both:?}").contains("geheim"));
        let pem = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n";
        assert_eq!(of(&[("ca.crt", &pem.repeat(2))]).unwrap().roots.unwrap(), [b"abc", b"abc"]);
    }

    #[test]
    fn what_holds_none_is_said() {
        use CredentialsError::*;
        for (pairs, error) in [
            (vec![("token", "a")], Nothing),
            (vec![("username", "a")], Half("username", "password")),
            (vec![("username", "a"), ("password", "b"), ("bearerToken", "c")], Both),
            (vec![("bearerToken", "a\u{1}b")], NoHeader("bearerToken")),
            (vec![("ca.crt", "abc")], NoCertificate),
            (vec![("ca.crt", "-----BEGIN CERTIFICATE-----\nYWJj")], NoCertificate),
        ] {
            assert_eq!(of(&pairs).unwrap_err(), error, "{pairs:?}");
        }
    }
}
