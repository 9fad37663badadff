//! Fetches from a server that is played by each test.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    sync::{Arc, Mutex},
};

use super::*;

const QUICK: Patience = Patience {
    attempts: 3,
    pause: Duration::from_millis(1),
};

/// A server on this machine, with the requests that it got: path and first byte.
struct Mirror {
    url: String,
    asked: Arc<Mutex<Vec<(String, u64)>>>,
}

impl Mirror {
    /// Answers each request with the bytes of `answer`, which gets the path and the first byte, and
    /// closes the connection.
    fn start(answer: impl Fn(&str, u64) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head: Vec<String> = BufReader::new(&stream)
                    .lines()
                    .map(Result::unwrap)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let path = head[0].split(' ').nth(1).unwrap().to_owned();
                let from = head.iter().find_map(|line| first_byte(line)).unwrap_or(0);
                seen.lock().unwrap().push((path.clone(), from));
                stream.write_all(&answer(&path, from)).unwrap();
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<(String, u64)> {
        self.asked.lock().unwrap().clone()
    }

    /// A file of this server with the digest of `content`.
    fn wanted(&self, name: &str, content: &[u8]) -> Wanted {
        Wanted {
            name: name.to_owned(),
            url: format!("{}/{name}", self.url),
            digest: official::digest(content).unwrap(),
        }
    }
}

/// The first byte of a `Range` header.
fn first_byte(line: &str) -> Option<u64> {
    let line = line.to_lowercase();
    let range = line.strip_prefix("range: bytes=")?;
    range.strip_suffix('-')?.parse().ok()
}

/// An answer that announces `announced` bytes of body and ends after `body`.
fn answer(status: &str, more: &str, announced: usize, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {announced}\r\nConnection: close\r\n{more}\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", "", body.len(), body)
}

/// The bytes of `content` from `from` on, as a server answers a request for a range.
fn partial(content: &[u8], from: u64) -> Vec<u8> {
    let body = &content[usize::try_from(from).unwrap()..];
    let (last, whole) = (content.len() - 1, content.len());
    let range = format!("Content-Range: bytes {from}-{last}/{whole}\r\n");
    answer("206 Partial Content", &range, body.len(), body)
}

async fn fetch_one(dir: &Path, wanted: Wanted) -> Result<()> {
    fetch_all(dir, &[wanted], QUICK, &|_| {}).await
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn whole_files_arrive_under_their_names() {
    let mirror = Mirror::start(|path, _| ok(path.as_bytes()));
    let dir = tempfile::tempdir().unwrap();
    let wanted = [mirror.wanted("a", b"/a"), mirror.wanted("b", b"/b")];
    let lines = Mutex::new(Vec::new());
    let say = |line: &str| lines.lock().unwrap().push(line.to_owned());
    fetch_all(dir.path(), &wanted, QUICK, &say).await.unwrap();
    assert_eq!(names(dir.path()), ["a", "b"]);
    assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"/b");
    assert_eq!(
        *lines.lock().unwrap(),
        ["a is fetched and right", "b is fetched and right"]
    );
}

#[tokio::test]
async fn a_cut_connection_is_resumed_where_it_ended() {
    let content = b"0123456789";
    let mirror = Mirror::start(move |_, from| match from {
        0 => answer("200 OK", "", content.len(), &content[..4]),
        from => partial(content, from),
    });
    let dir = tempfile::tempdir().unwrap();
    fetch_one(dir.path(), mirror.wanted("a", content))
        .await
        .unwrap();
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), content);
    assert_eq!(names(dir.path()), ["a"]);
    let asked = [("/a".to_owned(), 0), ("/a".to_owned(), 4)];
    assert_eq!(mirror.asked(), asked);
}

#[tokio::test]
async fn a_server_without_ranges_sends_the_file_anew() {
    let content = b"0123456789";
    let mirror = Mirror::start(move |_, _| ok(content));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.part"), "xxxx").unwrap();
    fetch_one(dir.path(), mirror.wanted("a", content))
        .await
        .unwrap();
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), content);
    assert_eq!(mirror.asked(), [("/a".to_owned(), 4)]);
}

#[tokio::test]
async fn a_complete_part_only_gets_its_name() {
    let mirror = Mirror::start(|_, from| {
        let range = format!("Content-Range: bytes */{from}\r\n");
        answer("416 Range Not Satisfiable", &range, 0, b"")
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.part"), "whole").unwrap();
    fetch_one(dir.path(), mirror.wanted("a", b"whole"))
        .await
        .unwrap();
    assert_eq!(names(dir.path()), ["a"]);
}

#[tokio::test]
async fn a_wrong_digest_is_refused_and_leaves_nothing() {
    let mirror = Mirror::start(|_, _| ok(b"forged"));
    let dir = tempfile::tempdir().unwrap();
    let error = fetch_one(dir.path(), mirror.wanted("v28-x.vk", b"genuine"))
        .await
        .unwrap_err();
    let error = format!("{error:#}");
    assert!(error.contains("v28-x.vk has the digest"), "{error}");
    assert_eq!(names(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_refusal_that_stays_ends_at_once() {
    for status in ["404 Not Found", "403 Forbidden", "410 Gone"] {
        let mirror = Mirror::start(move |_, _| answer(status, "", 0, b""));
        let dir = tempfile::tempdir().unwrap();
        let error = fetch_one(dir.path(), mirror.wanted("a", b"a"))
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains(status), "{error:#}");
        assert_eq!(mirror.asked().len(), 1, "{status}");
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_refusal_that_passes_is_tried_again_a_few_times() {
    let mirror = Mirror::start(|_, _| answer("503 Service Unavailable", "", 0, b""));
    let dir = tempfile::tempdir().unwrap();
    let error = fetch_one(dir.path(), mirror.wanted("a", b"a"))
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("after 3 attempts"));
    assert_eq!(mirror.asked().len(), 3);
}

#[tokio::test]
async fn redirects_are_followed_with_their_range() {
    let content = b"0123456789";
    let mirror = Mirror::start(move |path, from| match path {
        "/a" => answer("302 Found", "Location: /moved\r\n", 0, b""),
        _ => partial(content, from),
    });
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.part"), &content[..3]).unwrap();
    fetch_one(dir.path(), mirror.wanted("a", content))
        .await
        .unwrap();
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), content);
    let asked = [("/a".to_owned(), 3), ("/moved".to_owned(), 3)];
    assert_eq!(mirror.asked(), asked);
}

#[test]
fn an_answer_fits_the_bytes_at_hand_or_starts_over() {
    for (status, range, have, reading) in [
        (200, None, 0, "whole"),
        (200, None, 5, "whole"),
        (206, Some("bytes 5-9/10"), 5, "rest"),
        (206, Some("bytes 0-9/10"), 5, "start over"),
        (206, None, 5, "start over"),
        (416, Some("bytes */5"), 5, "complete"),
        (416, Some("bytes */4"), 5, "start over"),
        (416, None, 5, "start over"),
        (416, None, 0, "permanent"),
        (404, None, 0, "permanent"),
        (429, None, 0, "temporary"),
        (408, None, 0, "temporary"),
        (500, None, 0, "temporary"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let read = match read_answer(status, range, have) {
            Answer::Rest => "rest",
            Answer::Whole => "whole",
            Answer::Complete => "complete",
            Answer::StartOver(_) => "start over",
            Answer::Refused(Fault::Temporary(_)) => "temporary",
            Answer::Refused(Fault::Permanent(_)) => "permanent",
        };
        assert_eq!(read, reading, "{status} {range:?} after {have}");
    }
}
