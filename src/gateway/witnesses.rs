//! How checkpoints get to the witnesses of the configuration: appended to a file, or posted.

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use crate::audit::ledger::publish::{Place, Send};
use crate::config::{Destination, Witness};
use crate::outlets::{LineFile, Post, PostRequest, bearer, deliver};

/// Who may read a file of checkpoints.
const EVERYBODY: u32 = 0o644;
/// How long a witness may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The places that checkpoints are brought to.
pub(super) fn places(witnesses: &[Witness], post: &Post) -> Vec<Place> {
    let place = |witness: &Witness| Place { name: witness.name.clone(), send: send(&witness.destination, post) };
    witnesses.iter().map(place).collect()
}

fn send(to: &Destination, post: &Post) -> Send {
    match to.clone() {
        Destination::File(path) => {
            let file = LineFile::new(path, EVERYBODY);
            Arc::new(move |note| {
                let file = file.clone();
                // The empty line closes off what a crash left half written.
                Box::pin(async move { file.append(format!("\n{note}")).await.map_err(|failure| failure.text) })
            })
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::audit::ledger::note::Note;
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

    #[tokio::test]
    async fn a_witness_that_is_a_file_keeps_every_note_whole() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("checkpoints.txt");
        let post: Post = Arc::new(|_| unreachable!("nothing is posted"));
        // Each by a process of its own.
        let send = |note| super::send(&Destination::File(file.clone()), &post)(note);
        let note = |size| format!("a\n{size}\n{0}=\n\n\u{2014} a {1}\n", "A".repeat(43), "A".repeat(92));
        send(note(1)).await.expect("appended");
        let whole = std::fs::read_to_string(&file).expect("text");
        std::fs::write(&file, format!("{whole}\na\n2")).expect("torn");
        send(note(3)).await.expect("appended");
        let text = std::fs::read_to_string(&file).expect("text");
        let read: Vec<_> = Note::parse_all(&text).into_iter().map(|(line, note)| (line, note.is_ok())).collect();
        assert_eq!(read, [(2, true), (8, false), (11, true)], "{text}");
        let nowhere = super::send(&Destination::File(dir.path().join("no/such")), &post);
        let error = nowhere(note(1)).await.expect_err("no directory");
        assert!(error.contains("no/such cannot be written"), "{error}");
    }
}
