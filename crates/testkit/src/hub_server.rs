//! A model hub on loopback: the API and the file addresses that clients of the real one use, with
//! faults to order.
//!
//! Large files (`.safetensors`, `.gguf`) are redirected to a second port, as the real hub does; the
//! redirect has their SHA-256, the storage an ETag of its own. Small ones have git's hash.
//!
//! Invariant: every request is recorded; each connection serves one request.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// The commit of every repository.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum HubFault {
    /// The next download of the file ends after so many bytes.
    CutAfter(usize),
    /// The next download ignores where it should begin.
    IgnoreRange,
    /// Every download of the file has its last byte changed.
    Damage,
    /// The next download has this status.
    Status(u16),
    /// The next download says nothing for so long after its first byte.
    Stall(Duration),
}

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRequest {
    /// `GET`, `HEAD` or `POST`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// Whether it came to the second port.
    pub is_storage: bool,
    /// The value of `authorization`.
    pub authorization: Option<String>,
    /// The value of `range`.
    pub range: Option<String>,
    /// What came after the headers.
    pub body: String,
}

#[derive(Default)]
struct State {
    /// Files by repository and name.
    repos: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Repositories for those with this token only; and whether they are gated.
    locked: BTreeMap<String, (String, bool)>,
    faults: BTreeMap<String, VecDeque<HubFault>>,
    /// The API's next answers.
    api_statuses: VecDeque<u16>,
    requests: Vec<HubRequest>,
}

/// A running hub; it ends with its process.
#[derive(Clone)]
pub struct HubServer {
    state: Arc<Mutex<State>>,
    hub: SocketAddr,
    storage: SocketAddr,
}

impl HubServer {
    /// An empty hub.
    ///
    /// # Panics
    /// Where no port can be bound.
    pub fn start() -> Self {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
        let (hub, storage) = (bind(), bind());
        let server = Self {
            state: Arc::default(),
            hub: address(&hub),
            storage: address(&storage),
        };
        for (listener, is_storage) in [(hub, false), (storage, true)] {
            let server = server.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = server.clone();
                    // A client that goes away is none of this thread's business.
                    std::thread::spawn(move || drop(server.answer(stream, is_storage)));
                }
            });
        }
        server
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// The commit that `main` names.
    pub fn commit(&self) -> &'static str {
        COMMIT
    }

    /// Adds or replaces a file.
    pub fn add_file(&self, repo: &str, name: &str, bytes: &[u8]) {
        let mut state = self.lock();
        let files = state.repos.entry(repo.to_owned()).or_default();
        files.insert(name.to_owned(), bytes.to_vec());
    }

    /// Lets only those with `token` read a repository.
    pub fn lock_repo(&self, repo: &str, token: &str, is_gated: bool) {
        let lock = (token.to_owned(), is_gated);
        self.lock().locked.insert(repo.to_owned(), lock);
    }

    /// Adds a fault of the downloads of `file`; they happen in order.
    pub fn add_fault(&self, file: &str, fault: HubFault) {
        let mut state = self.lock();
        state
            .faults
            .entry(file.to_owned())
            .or_default()
            .push_back(fault);
    }

    /// The status of the next answer of the API.
    pub fn fail_api(&self, status: u16) {
        self.lock().api_statuses.push_back(status);
    }

    /// The status of the API's answer after `num_right` right ones.
    pub fn fail_api_after(&self, num_right: usize, status: u16) {
        let mut state = self.lock();
        let statuses = std::iter::repeat_n(200, num_right).chain([status]);
        state.api_statuses.extend(statuses);
    }

    /// What came so far.
    pub fn requests(&self) -> Vec<HubRequest> {
        self.lock().requests.clone()
    }

    /// The bodies of files that were asked for so far.
    pub fn downloads(&self) -> Vec<HubRequest> {
        let is_download =
            |request: &HubRequest| request.method == "GET" && !request.path.starts_with("/api/");
        let mut requests = self.requests();
        // A redirect's target counts, not the redirect.
        requests.retain(|r| is_download(r) && (r.is_storage || !is_large(&r.path)));
        requests
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn answer(&self, mut stream: TcpStream, is_storage: bool) -> std::io::Result<()> {
        let Some(request) = read_request(&stream, is_storage)? else {
            return Ok(());
        };
        self.lock().requests.push(request.clone());
        if let Some(rest) = request.path.strip_prefix("/api/models/") {
            return self.answer_api(&mut stream, &request, rest);
        }
        let path = request.path.trim_start_matches('/').to_owned();
        let Some((repo, rest)) = path.split_once("/resolve/") else {
            return write_status(&mut stream, 404, "");
        };
        let file = rest.split_once('/').map_or("", |(_, file)| file);
        if let Some((status, code)) = self.refusal(repo, &request) {
            return write_status(&mut stream, status, code);
        }
        let bytes = self
            .lock()
            .repos
            .get(repo)
            .and_then(|files| files.get(file))
            .cloned();
        let Some(bytes) = bytes else {
            return write_status(&mut stream, 404, "EntryNotFound");
        };
        if is_large(file) && !is_storage {
            let head = format!(
                "HTTP/1.1 302 Found\r\nlocation: http://{}/{path}\r\nx-repo-commit: {COMMIT}\r\n\
                 x-linked-etag: \"{}\"\r\nx-linked-size: {}\r\ncontent-length: 0\r\n\
                 connection: close\r\n\r\n",
                self.storage,
                sha256(&bytes),
                bytes.len()
            );
            return stream.write_all(head.as_bytes());
        }
        self.answer_file(&mut stream, &request, file, bytes)
    }

    /// Why a request may not read a repository.
    fn refusal(&self, repo: &str, request: &HubRequest) -> Option<(u16, &'static str)> {
        let state = self.lock();
        // The storage has signed addresses in place of tokens.
        let (token, is_gated) = state.locked.get(repo).filter(|_| !request.is_storage)?;
        let expected = format!("Bearer {token}");
        match (&request.authorization, is_gated) {
            (Some(found), _) if *found == expected => None,
            (Some(_), true) => Some((403, "GatedRepo")),
            (None, true) => Some((401, "GatedRepo")),
            (_, false) => Some((401, "RepoNotFound")),
        }
    }

    /// `ORG/NAME/revision/REVISION`, and `ORG/NAME/paths-info/REVISION`. As with the real one,
    /// a list of files has their lengths only where `blobs` are asked for.
    fn answer_api(
        &self,
        stream: &mut TcpStream,
        request: &HubRequest,
        path: &str,
    ) -> std::io::Result<()> {
        let next_status = self.lock().api_statuses.pop_front();
        if let Some(status) = next_status.filter(|&status| status != 200) {
            return write_status(stream, status, "");
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (repo, kind, revision) = ["/revision/", "/paths-info/"]
            .into_iter()
            .find_map(|kind| path.split_once(kind).map(|(repo, rest)| (repo, kind, rest)))
            .unwrap_or((path, "/revision/", "main"));
        if let Some((status, code)) = self.refusal(repo, request) {
            return write_status(stream, status, code);
        }
        let Some(files) = self.lock().repos.get(repo).cloned() else {
            return write_status(stream, 404, "RepoNotFound");
        };
        if !["main", COMMIT].contains(&revision) {
            return write_status(stream, 404, "RevisionNotFound");
        }
        let body = if kind == "/paths-info/" {
            let asked: Value = serde_json::from_str(&request.body).unwrap_or_default();
            let asked = asked["paths"].as_array().cloned().unwrap_or_default();
            let asked = asked.iter().filter_map(Value::as_str);
            let entry = |name: &str| {
                let bytes = files.get(name)?;
                Some(json!({"type": "file", "path": name, "size": bytes.len(), "oid": "0"}))
            };
            Value::Array(asked.filter_map(entry).collect())
        } else {
            let sibling = |(name, bytes): (&String, &Vec<u8>)| match query.contains("blobs=true") {
                true => json!({"rfilename": name, "size": bytes.len()}),
                false => json!({"rfilename": name}),
            };
            let siblings: Vec<_> = files.iter().map(sibling).collect();
            json!({"id": repo, "sha": COMMIT, "siblings": siblings})
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())
    }

    fn answer_file(
        &self,
        stream: &mut TcpStream,
        request: &HubRequest,
        file: &str,
        mut bytes: Vec<u8>,
    ) -> std::io::Result<()> {
        // A storage knows nothing of repositories, and has names of its own for contents.
        let names = match is_large(file) {
            true => "etag: \"storage-1\"\r\n".to_owned(),
            false => format!(
                "etag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\n",
                git_hash(&bytes)
            ),
        };
        let is_head = request.method == "HEAD";
        let fault = if is_head { None } else { self.next_fault(file) };
        if let Some(HubFault::Status(status)) = fault {
            return write_status(stream, status, "");
        }
        if let (Some(HubFault::Damage), Some(last)) = (&fault, bytes.last_mut()) {
            *last ^= 1;
        }
        let first = request.range.as_deref().and_then(|range| {
            let (first, _) = range.strip_prefix("bytes=")?.split_once('-')?;
            first.parse::<usize>().ok()
        });
        let first = first.filter(|_| !matches!(fault, Some(HubFault::IgnoreRange)));
        let (status, range) = match first {
            Some(first) if first >= bytes.len() => return write_status(stream, 416, ""),
            Some(first) => {
                let (last, all) = (bytes.len() - 1, bytes.len());
                (
                    "206 Partial Content",
                    format!("content-range: bytes {first}-{last}/{all}\r\n"),
                )
            }
            None => ("200 OK", String::new()),
        };
        let body = &bytes[first.unwrap_or(0)..];
        let head = format!(
            "HTTP/1.1 {status}\r\n{names}{range}content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        match fault {
            _ if is_head => Ok(()),
            Some(HubFault::CutAfter(len)) => stream.write_all(&body[..len.min(body.len())]),
            Some(HubFault::Stall(time)) => {
                stream.write_all(&body[..1])?;
                std::thread::sleep(time);
                Ok(())
            }
            _ => stream.write_all(body),
        }
    }

    /// Takes the next fault of a file; damage stays.
    fn next_fault(&self, file: &str) -> Option<HubFault> {
        let mut state = self.lock();
        let faults = state.faults.get_mut(file)?;
        match faults.front() {
            Some(HubFault::Damage) => Some(HubFault::Damage),
            _ => faults.pop_front(),
        }
    }
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".gguf")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn git_hash(bytes: &[u8]) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(format!("blob {}\0", bytes.len()));
    sha1.update(bytes);
    hex(&sha1.finalize())
}

fn read_request(stream: &TcpStream, is_storage: bool) -> std::io::Result<Option<HubRequest>> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.trim_end().split(' ');
    let (Some(method), Some(path)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut request = HubRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        is_storage,
        authorization: None,
        range: None,
        body: String::new(),
    };
    let mut num_body_bytes = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.trim().to_owned()),
            "range" => request.range = Some(value.trim().to_owned()),
            "content-length" => num_body_bytes = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = reader.take(num_body_bytes);
    body.read_to_string(&mut request.body)?;
    Ok(Some(request))
}

fn write_status(stream: &mut TcpStream, status: u16, code: &str) -> std::io::Result<()> {
    let code = match code {
        "" => String::new(),
        code => format!("x-error-code: {code}\r\n"),
    };
    let head =
        format!("HTTP/1.1 {status} X\r\n{code}content-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())
}
