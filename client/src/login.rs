//! Logging in: from a password, a browser or a program's certificate to everything a client needs (A1–A9, R19–R22).

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ringfort_enrol::tls::{self, ALPN_HTTP1, OwnCertificate, split_root};
use ringfort_enrol::{Folder, FolderError, Https, HttpsError, Identity, Kind, PrivateKey, file, wall_clock};
use ringfort_identity::{Role, Side, Trust};
use ringfort_proto::api::{
    BASE, Known, LoginMethods, LoginRequest, LoginResponse, NONCE_HEADER, OidcBegin, OidcFinish, TotpSecret,
    callback_path,
};
use ringfort_token::ClaimsToken;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::controller::{ControllerClient, decode_certificate, decode_certificates};
use crate::method::{Chosen, chosen, other_passwords};
use crate::random::random_hex;
use crate::redirect::{self, Browser, Redirect};
use crate::tokens::{Held, Judge, Tokens, TokensError};

/// Port of a URL that names none.
const HTTPS_PORT: u16 = 443;
/// Longest URL that somebody is shown, in bytes.
const URL_BYTES_MAX: usize = 8 << 10;

/// How to log in.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// `https://host[:port]` of a Controller. Needed at first contact only.
    pub controller: Option<String>,
    /// SHA-256 of the organisation's root certificate in hexadecimal. Needed at first contact only (A1).
    pub ca_fingerprint: Option<String>,
    /// Login name; by default that with which the device joined or last logged in. An OpenID provider asks for it itself.
    pub user: Option<String>,
    /// The method; by default the first that the Controller names and whoever logs in can use.
    pub method: Option<String>,
    /// A one-time password, for users who have them.
    pub otp: Option<String>,
    /// An OpenID provider is to ask anew who it is, as for what needs a fresh login (R2).
    pub fresh: bool,
}

/// Whoever logs in, as far as they are asked.
pub trait Person {
    /// The password of `user`. It is asked for once the Controller has shown who it is.
    ///
    /// # Errors
    /// When there is nobody to ask.
    fn password(&mut self, user: &str) -> std::io::Result<Zeroizing<String>>;

    /// A one-time password, which the Controller has asked for.
    ///
    /// # Errors
    /// As [`Person::password`].
    fn otp(&mut self) -> std::io::Result<Zeroizing<String>>;

    /// Their password goes to `method`, which they did not name, and which is not the only one that would take it.
    fn uses(&mut self, method: &str, others: &[String]);

    /// How they can use a browser; `None` if not at all, so that passwords are all there is.
    fn browser(&self) -> Option<Browser>;

    /// They are to visit this URL in their browser.
    fn visit(&mut self, url: &str);

    /// The URL to which the browser was sent ([`Browser::Elsewhere`]).
    ///
    /// # Errors
    /// As [`Person::password`].
    fn returned(&mut self) -> std::io::Result<String>;
}

/// Who is logged in, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedIn {
    /// Name of the session.
    pub session: String,
    /// The user's name, for people.
    pub name: String,
    /// When the login ends, in seconds since 1970.
    pub ends_at: u64,
    /// Names of the sites that are open to the user.
    pub sites: Vec<String>,
}

/// Logs in with the folder `state`.
///
/// # Errors
/// What was expected and what came. Nothing that was not verified is stored.
pub async fn login(state: &Path, login: Login, person: &mut dyn Person) -> Result<LoggedIn> {
    let (folder, mut identity) = match Folder::open_joined(state) {
        Ok(known) => known,
        Err(FolderError::NotJoined { .. }) => first_contact(state, &login).await?,
        Err(error) => return Err(error.into()),
    };
    ensure!(
        identity.kind == Kind::Device,
        "{} is the folder of a {:?}; users log in with one of their own",
        state.display(),
        identity.kind
    );
    check_fingerprint(&folder, login.ca_fingerprint.as_deref())?;
    if let Some(url) = &login.controller {
        let address = controller_address(url)?;
        identity.controllers.retain(|known| *known != address);
        identity.controllers.insert(0, address);
    }
    let key = folder.key_or_new()?;
    let mut controller = ControllerClient::new(identity.controllers.clone(), folder.trust()?, None, &key)?;
    let methods = controller.login_methods().await?;
    check_organisation(&methods, &identity.organisation)?;
    let answer = match chosen(&methods, login.method.as_deref(), person.browser())? {
        Chosen::Browser(method, browser) => {
            let path = callback_path(&method).with_context(|| {
                format!("expected a method whose name has letters, digits, '-', '_' and '.' only, found {method:?}")
            })?;
            let begin = |redirect_uri| {
                let (client_id, fresh) = (identity.id.clone(), login.fresh);
                OidcBegin { method, client_id, redirect_uri, fresh }
            };
            by_browser(&mut controller, browser, path, login.otp, person, begin).await?
        }
        Chosen::Password(method) => {
            let user = login.user.or_else(|| Some(identity.user.clone()).filter(|user| !user.is_empty()));
            let user = user.context("expected a user's name; name one with --user")?;
            identity.user.clone_from(&user);
            let others = other_passwords(&methods, &method);
            if login.method.is_none() && !others.is_empty() {
                person.uses(&method, &others);
            }
            by_password(&mut controller, method, user, login.otp, identity.id.clone(), person).await?
        }
    };
    let (_, claims) = Session::new(&folder, &identity, &key)?.take_claims(&answer)?;
    if identity.user.is_empty() {
        identity.user.clone_from(&claims.token.name);
    }
    let session = Session::new(&folder, &identity, &key)?;
    let (judge, tokens) = session.fetch(&mut controller, claims).await?;
    let chain = fetch_certificate(&judge, &mut controller, &key, &tokens).await?;
    store(&folder, &tokens, &chain)?;
    let sites = tokens.connect.iter().flat_map(|connect| &connect.token.sites);
    Ok(LoggedIn {
        session: tokens.claims.token.sub.clone(),
        name: tokens.claims.token.name.clone(),
        ends_at: tokens.claims.token.dies_at().0,
        sites: sites.map(|site| site.name.clone()).collect(),
    })
}

/// Logs in with a password, and with a one-time password if the Controller asks for one.
async fn by_password(
    controller: &mut ControllerClient,
    method: String,
    user: String,
    otp: Option<String>,
    client_id: String,
    person: &mut dyn Person,
) -> Result<LoginResponse> {
    let password = person.password(&user)?.to_string();
    let mut request = LoginRequest { user, password, client_id, method: Some(method), otp };
    let mut answer = controller.login(&request).await;
    if request.otp.is_none() && answer.as_ref().is_err_and(|error| error.code() == Some("otp_required")) {
        let otp = person.otp().context("a one-time password is asked for beside the password")?;
        request.otp = Some(otp.to_string());
        answer = controller.login(&request).await;
    }
    Ok(answer?)
}

/// Logs in at an OpenID provider: the user's browser goes there and comes back to us, at the provider's own `path`, with a code (RFC 8252).
async fn by_browser(
    controller: &mut ControllerClient,
    browser: Browser,
    path: String,
    otp: Option<String>,
    person: &mut dyn Person,
    begin: impl FnOnce(String) -> OidcBegin,
) -> Result<LoginResponse> {
    let listener = match browser {
        Browser::Here => Some(Redirect::listen(path.clone()).await?),
        Browser::Elsewhere => None,
    };
    let redirect = listener.as_ref().map_or_else(|| redirect::nowhere(&path), Redirect::uri);
    let begun = controller.oidc_begin(&begin(redirect)).await?;
    person.visit(shown(&begun.url)?);
    let returned = match listener {
        Some(listener) => listener.wait(&begun.state).await?,
        None => redirect::pasted(&person.returned()?, &path, &begun.state)?,
    };
    let redirect::Returned { code, issuer } = returned;
    let mut finish = OidcFinish { handle: begun.handle, code, state: begun.state, issuer, otp };
    let mut answer = controller.oidc_finish(&finish).await;
    if finish.otp.is_none() && answer.as_ref().is_err_and(|error| error.code() == Some("otp_required")) {
        let code = person.otp().context("a one-time password is asked for beside the provider's login")?;
        finish.otp = Some(code.to_string());
        answer = controller.oidc_finish(&finish).await;
    }
    Ok(answer?)
}

/// A URL as it may be shown: what people compare by eye, and terminals print as it is.
fn shown(url: &str) -> Result<&str> {
    let is_web = url.starts_with("https://") || url.starts_with("http://");
    let is_plain = url.len() <= URL_BYTES_MAX && url.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(
        is_web && is_plain,
        "expected an https URL of at most {URL_BYTES_MAX} printable ASCII characters to log in at, found another: ask your administrator for the provider's authorization_endpoint"
    );
    Ok(url)
}

/// Logs in as a service, by the certificate in `folder` (X12). Where the Controller cannot be reached, a login that has not ended
/// stays.
pub(crate) async fn login_service(folder: &Folder, identity: &Identity) -> Result<()> {
    let key = folder.key()?;
    let mut controller = authenticated(folder, identity, &key)?;
    let answer = match controller.login_service().await {
        Err(error) if error.code().is_none() && has_login(folder, identity, &key) => {
            tracing::warn!(%error, "no new login; the last one is used as long as it lasts");
            return Ok(());
        }
        answer => {
            answer.context("cannot log in as this service; if its certificate has expired it must be invited anew")?
        }
    };
    let session = Session::new(folder, identity, &key)?;
    let (_, claims) = session.take_claims(&answer)?;
    let (judge, tokens) = session.fetch(&mut controller, claims).await?;
    let chain = fetch_certificate(&judge, &mut controller, &key, &tokens).await?;
    Ok(store(folder, &tokens, &chain)?)
}

/// Keeps what a login has brought, in place of whatever login there was.
fn store(folder: &Folder, tokens: &Tokens, chain: &[CertificateDer<'_>]) -> Result<(), FolderError> {
    let folder = folder.lock()?;
    folder.write_certificates(file::CHAIN, chain)?;
    tokens.store(&folder)
}

/// Whether the folder has a login that has not ended.
fn has_login(folder: &Folder, identity: &Identity, key: &PrivateKey) -> bool {
    let now = wall_clock();
    let holder = key.thumbprint();
    holder.is_ok_and(|holder| {
        let judge = Judge::of_folder(folder, identity, holder, now);
        judge.and_then(|judge| Tokens::load(folder, &judge, now)).is_ok()
    })
}

/// Gives whoever has just logged in with the folder `state` one-time passwords.
///
/// # Errors
/// When nobody is logged in, or what the Controller refused.
pub async fn totp(state: &Path) -> Result<TotpSecret> {
    let (folder, identity) = Folder::open_joined(state)?;
    let key = folder.key()?;
    let now = wall_clock();
    let judge = Judge::of_folder(&folder, &identity, key.thumbprint()?, now)?;
    let tokens = Tokens::load(&folder, &judge, now)?;
    Ok(authenticated(&folder, &identity, &key)?.totp(&tokens.claims.text).await?)
}

/// Goes to a Controller of which nothing is known but the fingerprint of its root (A1), and keeps its trust and a client id.
async fn first_contact(state: &Path, login: &Login) -> Result<(Folder, Identity)> {
    let url = login.controller.as_deref().with_context(|| {
        format!("{}: nobody has joined with this folder yet; run `ringfort login https://CONTROLLER --ca-fingerprint HEX`, or join by an invitation", state.display())
    })?;
    let address = controller_address(url)?;
    let fingerprint = login.ca_fingerprint.as_deref().map(parse_fingerprint).transpose()?;
    let (config, contact) = tls::first_contact(fingerprint, ALPN_HTTP1)?;
    let mut https = match Https::connect(&address, config).await {
        Ok(https) => https,
        Err(error) => bail!(refused_contact(&address, fingerprint, contact.root_seen(), error)),
    };
    let fingerprint = fingerprint.context("expected a fingerprint")?;
    let (leaf, sent) = https.certificates().split_first().context("the Controller sent no certificate")?;
    let (root, intermediates) = split_root(sent, &fingerprint).context("the Controller sent no root certificate")?;
    let trust = Trust::new(root, intermediates.iter().cloned())?;
    let peer = trust.verify(leaf, Side::Server, Role::Controller, wall_clock())?;
    let chain: Vec<CertificateDer<'static>> = std::iter::once(root).chain(intermediates).cloned().collect();
    let path = format!("{BASE}/login");
    let answer = https.request::<(), LoginMethods>(hyper::Method::GET, &path, &[], None, NONCE_HEADER).await?;
    check_organisation(&answer.body, peer.organisation())?;
    let folder = Folder::create(state)?;
    folder.key_or_new()?;
    folder.write_certificates(file::CA, &chain)?;
    let identity = Identity {
        organisation: peer.organisation().into(),
        kind: Kind::Device,
        id: random_hex()?,
        site: String::new(),
        user: String::new(),
        controllers: vec![address],
    };
    folder.write_identity(&identity)?;
    Ok((folder, identity))
}

fn refused_contact(
    address: &str,
    expected: Option<[u8; 32]>,
    seen: Option<[u8; 32]>,
    error: HttpsError,
) -> anyhow::Error {
    let Some(seen) = seen.map(hex) else { return error.into() };
    match expected.map(hex) {
        None => anyhow::anyhow!(
            "nothing was sent: {address} shows a root certificate with the fingerprint\n  {seen}\nCompare it with the one that your administrator gave you, not with one from the same connection. If it is the same, run this again with --ca-fingerprint {seen}"
        ),
        Some(expected) if expected != seen => anyhow::anyhow!(
            "nothing was sent: expected a root certificate with the fingerprint\n  {expected}\nand {address} shows one with\n  {seen}\nThis is another organisation's Controller, or somebody in between. Check the address and the fingerprint with your administrator"
        ),
        Some(_) => error.into(),
    }
}

fn check_fingerprint(folder: &Folder, fingerprint: Option<&str>) -> Result<()> {
    let Some(expected) = fingerprint.map(parse_fingerprint).transpose()? else { return Ok(()) };
    let certificates = folder.certificates(file::CA)?;
    let root = certificates.first().map(tls::fingerprint).context("ca.pem is empty")?;
    ensure!(
        root == expected,
        "{} belongs to an organisation whose root certificate has the fingerprint {}, not {}; use another folder",
        folder.path().display(),
        hex(root),
        hex(expected)
    );
    Ok(())
}

fn check_organisation(methods: &LoginMethods, expected: &str) -> Result<()> {
    let found = &methods.organisation;
    ensure!(found == expected, "expected a Controller of the organisation {expected}, found one of {found}");
    Ok(())
}

/// What judges and keeps what the Controller answers.
pub(crate) struct Session<'a> {
    folder: &'a Folder,
    identity: &'a Identity,
    key: &'a PrivateKey,
    roots: Vec<CertificateDer<'static>>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(folder: &'a Folder, identity: &'a Identity, key: &'a PrivateKey) -> Result<Self> {
        Ok(Self { folder, identity, key, roots: folder.certificates(file::CA)? })
    }

    /// The claims token of an answer, and what judges everything else that comes with it.
    pub(crate) fn take_claims(&self, answer: &LoginResponse) -> Result<(Judge, Held<ClaimsToken>)> {
        ensure!(decode_certificate(&answer.root)? == *self.root()?, TokensError::OtherRoot);
        self.learn(&answer.known, |judge| judge.claims(&answer.claims, wall_clock()))
    }

    /// Fetches the entitlement tokens and the connect token of a login, and what judges them.
    pub(crate) async fn fetch(
        &self,
        controller: &mut ControllerClient,
        claims: Held<ClaimsToken>,
    ) -> Result<(Judge, Tokens)> {
        let answer = controller.entitlements(&claims.text).await?;
        let now = wall_clock();
        self.learn(&answer.known, |judge| {
            let connect = judge.connect(&answer.connect, &claims.token, now)?;
            let entitlements = judge.entitlements(&answer.entitlements, &claims.token, &connect.token, now)?;
            Ok(Tokens { claims, connect: Some(connect), entitlements })
        })
    }

    /// Judges an answer by what came with it to be known, which is kept if the answer is good.
    fn learn<T>(&self, known: &Known, judged: impl FnOnce(&Judge) -> Result<T, TokensError>) -> Result<(Judge, T)> {
        let root = self.root()?;
        let intermediates = decode_certificates(&known.intermediates)?;
        let trust = Trust::new(root, intermediates.iter().cloned())?;
        let signers = decode_certificates(&known.signers)?;
        let judge = Judge::new(self.identity, self.key.thumbprint()?, trust, &signers, wall_clock())?;
        let judged = judged(&judge)?;
        let ca: Vec<_> = std::iter::once(root).chain(&intermediates).cloned().collect();
        for (file, certificates) in [(file::CA, &ca), (file::SIGNERS, &signers)] {
            if self.folder.certificates(file).ok().as_ref() != Some(certificates) {
                self.folder.write_certificates(file, certificates)?;
            }
        }
        let controllers = known.controllers.clone();
        ensure!(!controllers.is_empty(), "expected the addresses of the Controllers, found none");
        self.folder.write_identity(&Identity { controllers, ..self.identity.clone() })?;
        Ok((judge, judged))
    }

    fn root(&self) -> Result<&CertificateDer<'static>> {
        self.roots.first().context("ca.pem is empty")
    }
}

/// Fetches a certificate for `key` that bears the name of the claims token (A8, A9).
pub(crate) async fn fetch_certificate(
    judge: &Judge,
    controller: &mut ControllerClient,
    key: &PrivateKey,
    tokens: &Tokens,
) -> Result<Vec<CertificateDer<'static>>> {
    let chain = controller.certificate(&tokens.claims.text, &key.certificate_request()?).await?;
    judge.certificate(&chain, &tokens.claims.token, wall_clock())?;
    Ok(chain)
}

/// A client of the Controllers that shows the certificate in `folder`.
pub(crate) fn authenticated(folder: &Folder, identity: &Identity, key: &PrivateKey) -> Result<ControllerClient> {
    let own = OwnCertificate::new(&folder.credentials()?)?;
    Ok(ControllerClient::new(identity.controllers.clone(), folder.trust()?, Some(own), key)?)
}

/// `host:port` of an `https` URL.
fn controller_address(url: &str) -> Result<String> {
    let expected = || format!("expected a Controller as https://HOST or https://HOST:PORT, found {url:?}");
    let host = url.strip_prefix("https://").with_context(expected)?;
    let host = host.strip_suffix('/').unwrap_or(host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    ensure!(!host.is_empty() && host.len() <= 260 && host.bytes().all(plain), expected());
    let has_port = match host.rsplit_once(']') {
        Some((_, behind)) => behind.starts_with(':'),
        None => host.contains(':'),
    };
    let address = if has_port { host.to_owned() } else { format!("{host}:{HTTPS_PORT}") };
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    ensure!(port.is_some_and(|port| port != 0), expected());
    Ok(address)
}

/// A fingerprint as people write it: 64 hexadecimal digits, colons between them or not.
pub(crate) fn parse_fingerprint(text: &str) -> Result<[u8; 32]> {
    let digits: String = text.chars().filter(|letter| *letter != ':').collect();
    parse_hex(&digits).context("expected a fingerprint: the SHA-256 of the root certificate, 64 hexadecimal digits")
}

/// 32 bytes in hexadecimal.
pub(crate) fn parse_hex(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    // from_str_radix takes a sign.
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(bytes)
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_addresses() {
        for (url, address) in [
            ("https://controller.example", "controller.example:443"),
            ("https://controller.example:8443/", "controller.example:8443"),
            ("https://[2001:db8::1]", "[2001:db8::1]:443"),
            ("https://[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("https://192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(controller_address(url).unwrap(), address);
        }
        for bad in ["http://a", "a:443", "https://", "https://a:0", "https://a:99999", "https://a/b", "https://u@a"] {
            assert!(controller_address(bad).is_err(), "{bad}");
        }
    }

    // Covers: R20 refuse
    #[test]
    fn a_url_that_is_shown_is_plain() {
        let good = "https://id.example/auth?client_id=ringfort&prompt=login+consent&x=%C3%A4";
        assert_eq!(shown(good).unwrap(), good);
        let long = format!("https://id.example/{}", "a".repeat(URL_BYTES_MAX));
        for bad in [
            "",
            "id.example",
            "javascript:alert(1)",
            "https://id.ex\u{430}mple/",
            "https://a/ b",
            "https://a/\x1b[2J",
            &long,
        ] {
            assert!(shown(bad).unwrap_err().to_string().contains("https URL"), "{bad}");
        }
    }

    #[test]
    fn fingerprints_have_64_digits() {
        let text = "0a".repeat(32);
        assert_eq!(parse_fingerprint(&text).unwrap(), [10; 32]);
        let colons: Vec<&str> = vec!["0A"; 32];
        assert_eq!(parse_fingerprint(&colons.join(":")).unwrap(), [10; 32]);
        for bad in [&text[1..], &text.replace("0a", "0g"), &text.replace("0a", "+a"), ""] {
            assert!(parse_fingerprint(bad).is_err(), "{bad}");
        }
    }
}
