//! How checkpoints get to the witnesses of the configuration: appended to a file, or posted.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::audit::ledger::publish::{Place, Send};
use crate::config::{Destination, Witness};
use crate::outlets::{Post, PostRequest, bearer, deliver};

/// How long a witness may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The places that checkpoints are brought to.
pub(super) fn places(witnesses: &[Witness], post: &Post) -> Vec<Place> {
    let place = |witness: &Witness| Place { name: witness.name.clone(), send: send(&witness.destination, post) };
    witnesses.iter().map(place).collect()
}

fn send(to: &Destination, post: &Post) -> Send {
    match to.clone() {
        Destination::File(file) => Arc::new(move |note| {
            let file = file.clone();
            Box::pin(async move {
                let appended = tokio::task::spawn_blocking(move || {
                    append(&file, &note).map_err(|error| format!("{}: {error}", file.display()))
                });
                appended.await.map_err(|error| error.to_string())?
            })
        }),
        Destination::Http(url, token_file) => {
            let post = Arc::clone(post);
            Arc::new(move |note| {
                let (post, url, token_file) = (Arc::clone(&post), url.clone(), token_file.clone());
                Box::pin(async move {
                    let mut headers = HeaderMap::new();
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                    if let Some(file) = &token_file {
                        headers.insert(AUTHORIZATION, bearer(file)?);
                    }
                    let (url, body) = (url.as_str().to_owned(), note.into());
                    let request = PostRequest { url, headers, body, timeout: TIMEOUT };
                    deliver(&post, request).await.map_err(|failure| failure.text)
                })
            })
        }
    }
}

/// Appends a note and an empty line; returns once it is on the disk. What a crash left half written is closed off first.
fn append(file: &Path, note: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).read(true).open(file)?;
    let mut end = [b'\n'; 2];
    if file.metadata()?.len() >= 2 {
        file.seek(SeekFrom::End(-2))?;
        file.read_exact(&mut end)?;
    }
    let close = if end == *b"\n\n" { "" } else { "\n\n" };
    file.write_all(format!("{close}{note}\n").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::config::{Config, LoadSource};
    use crate::outlets::PostAnswer;

    #[tokio::test]
    async fn a_witness_is_posted_the_note_with_its_token_and_must_take_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let token_file = dir.path().join("token");
        std::fs::write(&token_file, "tok\n").expect("written");
        let seen: Arc<Mutex<Vec<PostRequest>>> = Arc::default();
        let posted = Arc::clone(&seen);
        let post: Post = Arc::new(move |request| {
            let status = if request.body == "refused" { 500 } else { 200 };
            posted.lock().expect("whole").push(request);
            Box::pin(async move { Ok(PostAnswer { status, retry_after: None }) })
        });
        let file = dir.path().join("gateway.toml");
        let table = format!(
            "[[audit.witnesses]]\nname = \"w\"\nurl = \"https://witness.example/notes\"\ntoken_file = {token_file:?}\n"
        );
        std::fs::write(&file, table).expect("written");
        let config = Config::load(LoadSource::file(file)).expect("a good file");
        let places = places(&config.audit.witnesses, &post);
        (places[0].send)("a note".to_owned()).await.expect("taken");
        let error = (places[0].send)("refused".to_owned()).await.expect_err("not taken");
        assert!(error.contains("500"), "{error}");
        std::fs::remove_file(&token_file).expect("removed");
        (places[0].send)("a note".to_owned()).await.expect_err("without its token nothing is sent");
        let seen = seen.lock().expect("whole");
        let sent =
            |request: &PostRequest| (request.url.clone(), request.headers[AUTHORIZATION].clone(), request.body.clone());
        let wanted =
            ("https://witness.example/notes".to_owned(), HeaderValue::from_static("Bearer tok"), "a note".into());
        assert_eq!((sent(&seen[0]), seen.len()), (wanted, 2));
    }

    #[test]
    fn a_witness_that_is_a_file_keeps_every_note_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("checkpoints.txt");
        append(&file, "a\n1\nx=\n\n\u{2014} a b\n").expect("appended");
        std::fs::OpenOptions::new().append(true).open(&file).expect("opens").write_all(b"a\n2").expect("torn");
        append(&file, "a\n3\nx=\n\n\u{2014} a b\n").expect("appended");
        let text = std::fs::read_to_string(&file).expect("text");
        assert_eq!(text, "a\n1\nx=\n\n\u{2014} a b\n\na\n2\n\na\n3\nx=\n\n\u{2014} a b\n\n");
        append(&dir.path().join("no/such"), "").expect_err("no directory");
    }
}
