//! Logs: lines for people or JSON objects, on standard error, at a level that can be changed while the gateway runs.
//!
//! Promises: one event is one line, whatever is in it; nothing from outside reaches a terminal raw, neither control characters
//! nor those that reorder, hide or break text; who logs never waits for whoever reads. Must not know calls, agents or
//! configuration files: it is told a level.

mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer as _, Registry, reload};

use crate::clock::Clock;
use crate::config::{Log, LogFormat, LogLevel};
use queue::Queue;

/// The target of the one event that each call leaves. It has a switch of its own, `log.access`, whatever the level.
pub const ACCESS: &str = "access";

/// How long the end of the program waits for a reader of its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Changes what is logged.
#[derive(Clone, Debug)]
pub struct Switch(reload::Handle<Targets, Registry>);

impl Switch {
    /// Takes over the level and the access switch; the format stays what it was at start.
    pub fn set(&self, log: &Log) {
        // The handle only fails once the subscriber is gone, and then nothing is logged anyway.
        let _ = self.0.reload(filter(log));
    }
}

/// The logs of a running gateway. Dropped, also by a panic, it writes what is still on its way, within a second.
#[derive(Debug)]
pub struct Telemetry {
    switch: Switch,
    lines: Queue,
}

impl Telemetry {
    /// Takes over the level and the access switch; the format stays what it was at start.
    pub fn set(&self, log: &Log) {
        self.switch.set(log);
    }

    /// The number of lines that nobody will read, because the reader was too slow or gone.
    #[must_use]
    pub fn lost_lines(&self) -> LostLines {
        LostLines(self.lines.clone())
    }

    /// Writes `text` after all that was logged, as it is. It is for the reason why the program ends.
    pub fn last_words(&self, text: &str) {
        self.lines.put_in_any_case(text.as_bytes());
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.lines.finish(LAST_LINES);
    }
}

/// How many log lines were lost since the start, at any time.
#[derive(Clone, Debug)]
pub struct LostLines(Queue);

impl LostLines {
    /// The number now; it only grows.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.lost()
    }
}

/// Why a process cannot log.
#[derive(Debug)]
pub enum InitError {
    /// No thread can be started for it.
    Thread(std::io::Error),
    /// The process sends its logs elsewhere already.
    Taken(tracing::subscriber::SetGlobalDefaultError),
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => {
                write!(f, "no thread can be started for the log ({error}): allow this user more of them")
            }
            Self::Taken(error) => write!(f, "this process logs already: {error}"),
        }
    }
}

impl std::error::Error for InitError {}

/// Sends the logs of this process, its panics included, to standard error.
///
/// # Errors
/// When no thread can be started, or the process sends its logs elsewhere already.
pub fn init(log: &Log, clock: Clock) -> Result<Telemetry, InitError> {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = Queue::start(std::io::stderr(), |_, lost| tell_loss(lost)).map_err(InitError::Thread)?;
    let (subscriber, switch) = subscriber(log, clock, colour, lines.clone());
    tracing::subscriber::set_global_default(subscriber).map_err(InitError::Taken)?;
    // The standard library's own hook writes to standard error, and waits for its reader.
    std::panic::set_hook(Box::new(tell_panic));
    Ok(Telemetry { switch, lines })
}

fn tell_loss(lines: u64) {
    tracing::warn!(
        target: queue::LOSS,
        lines,
        "log lines were lost here: standard error was not read fast enough; read it faster, or log less (log.access, log.level)"
    );
}

fn tell_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let backtrace = Backtrace::capture();
    tracing::error!(
        target: "trust_gateway::panic",
        thread = thread.name(),
        place = panic.location().map(tracing::field::display),
        backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| tracing::field::display(&backtrace)),
        "{}",
        panic.payload_as_str().unwrap_or("a panic without a message")
    );
}

/// The subscriber behind [`init`], with a writer of the caller's choice.
pub fn subscriber<W>(
    log: &Log,
    clock: Clock,
    colour: bool,
    writer: W,
) -> (impl Subscriber + Send + Sync + use<W>, Switch)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(log));
    let time = WallTime(clock);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = match log.format {
        LogFormat::Text => lines.event_format(TextLine { time, colour }).boxed(),
        LogFormat::Json => {
            let inner = Format::default().json().flatten_event(true).with_timer(time);
            lines.fmt_fields(JsonFields::new()).event_format(JsonLine { inner }).boxed()
        }
    };
    (Registry::default().with(filter).with(lines), Switch(handle))
}

/// What is logged: our own events up to the level, those of libraries up to `info` unless everything is asked for.
fn filter(log: &Log) -> Targets {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let libraries = if level == LevelFilter::TRACE { level } else { level.min(LevelFilter::INFO) };
    let access = if log.access { LevelFilter::INFO } else { LevelFilter::OFF };
    Targets::new()
        .with_default(libraries)
        .with_target("trust_gateway", level)
        .with_target(ACCESS, access)
        // Whatever else is wanted, a log with holes says so.
        .with_target(queue::LOSS, level.max(LevelFilter::WARN))
}

/// The gateway's clock as the time of log lines.
struct WallTime(Clock);

impl FormatTime for WallTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", self.0.wall())
    }
}

/// `2026-11-21T05:25:00.123456Z  INFO trust_gateway::server: listening address=127.0.0.1:8080`
struct TextLine {
    time: WallTime,
    colour: bool,
}

impl<S> FormatEvent<S, DefaultFields> for TextLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, DefaultFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        self.time.format_time(&mut writer)?;
        let level = *event.metadata().level();
        if self.colour {
            let colour = match level {
                Level::ERROR => "31",
                Level::WARN => "33",
                Level::INFO => "32",
                Level::DEBUG => "34",
                Level::TRACE => "35",
            };
            write!(writer, " \x1b[{colour}m{level:>5}\x1b[0m ")?;
        } else {
            write!(writer, " {level:>5} ")?;
        }
        let mut fields = String::new();
        ctx.field_format().format_fields(Writer::new(&mut fields), event)?;
        writeln!(writer, "{}: {}", escaped(event.metadata().target()), escaped(&fields))
    }
}

/// One JSON object per line.
struct JsonLine {
    inner: Format<Json, WallTime>,
}

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(ctx, Writer::new(&mut line), event)?;
        // JSON escapes control characters below U+0020 only. The others occur inside strings alone, where \u is always right.
        let line = replaced(line.trim_end_matches('\n'), |out, c| {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                // A string takes everything: writing to it cannot fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        });
        writeln!(writer, "{line}")
    }
}

/// `text` with everything escaped that could act on a terminal, end a line, or make it look like other text.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, |out, c| out.extend(c.escape_default()))
}

fn replaced(text: &str, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Characters that do something instead of being seen: controls (C0, DEL, C1), line and paragraph separators, those that set
/// the direction of text, the byte order mark and the invisible tags.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}'
            | '\u{E0000}'..='\u{E007F}')
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;

    /// What was logged, in memory.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic while it is held").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Everything logged by `events`, under these settings.
    fn logged(log: &Log, colour: bool, events: impl FnOnce(&Switch)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let clock = Clock::manual(Timestamp(1_700_000_000_000_001));
        let (subscriber, switch) = subscriber(log, clock, colour, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || events(&switch));
        let bytes = lines.0.lock().expect("no panic while it is held").clone();
        String::from_utf8(bytes).expect("text")
    }

    const HOSTILE: &str = "a\u{1b}[2Jb\u{9b}31mc\u{2028}d\ne\r\u{202e}f\u{7f}\u{feff}\u{e0041}";

    /// Whether `text` is one line that holds nothing but printable characters; a definition of its own, by example.
    fn is_plain_line(text: &str) -> bool {
        let plain = |c: char| {
            c == ' '
                || c.is_ascii_graphic()
                || (!c.is_ascii() && c as u32 > 0x9f && !HOSTILE.contains(c) && c != '\u{2029}')
        };
        text.strip_suffix('\n').is_some_and(|line| line.chars().all(plain))
    }

    #[test]
    fn a_text_line_has_time_level_target_and_fields() {
        let text = logged(&Log::default(), false, |_| {
            tracing::info!(target: "trust_gateway::server", address = "127.0.0.1:1", "listening");
        });
        assert_eq!(
            text,
            "2023-11-14T22:13:20.000001Z  INFO trust_gateway::server: listening address=\"127.0.0.1:1\"\n"
        );
    }

    #[test]
    fn a_json_line_is_one_object_with_time_level_target_and_fields() {
        let log = Log { format: LogFormat::Json, ..Log::default() };
        let text = logged(&log, false, |_| tracing::warn!(target: "trust_gateway::server", count = 3, "slow"));
        let value: serde_json::Value = serde_json::from_str(&text).expect("one object");
        let expected = serde_json::json!({ "timestamp": "2023-11-14T22:13:20.000001Z", "level": "WARN",
            "target": "trust_gateway::server", "message": "slow", "count": 3 });
        assert_eq!(value, expected);
    }

    #[test]
    fn hostile_text_stays_on_its_line_and_off_the_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = Log { format, ..Log::default() };
            let text = logged(&log, false, |_| tracing::info!(shown = %HOSTILE, debug = ?HOSTILE, "{HOSTILE}"));
            assert!(is_plain_line(&text), "{text:?}");
        }
    }

    #[test]
    fn hostile_text_survives_json_unchanged() {
        let log = Log { format: LogFormat::Json, ..Log::default() };
        let text = logged(&log, false, |_| tracing::info!(name = HOSTILE, "x"));
        let value: serde_json::Value = serde_json::from_str(&text).expect("one object");
        assert_eq!(value["name"], HOSTILE);
    }

    #[test]
    fn colour_is_put_around_the_level_only() {
        let text = logged(&Log::default(), true, |_| tracing::error!(target: "trust_gateway", "\u{1b}[0m"));
        assert_eq!(text.matches('\u{1b}').count(), 2, "{text:?}");
        assert!(text.contains(" \u{1b}[31mERROR\u{1b}[0m trust_gateway: "), "{text:?}");
    }

    #[test]
    fn the_level_can_be_changed_while_running() {
        let text = logged(&Log::default(), false, |switch| {
            let say = |what: &str| tracing::debug!(target: "trust_gateway::proxy", "{what}");
            say("one");
            switch.set(&Log { level: LogLevel::Debug, ..Log::default() });
            say("two");
            switch.set(&Log::default());
            say("three");
        });
        assert!(text.contains("two") && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn libraries_are_heard_below_info_only_at_trace() {
        let lines = |level| {
            let log = Log { level, ..Log::default() };
            logged(&log, false, |_| {
                tracing::debug!(target: "hyper::proto", "x");
                tracing::info!(target: "hyper::proto", "y");
            })
            .lines()
            .count()
        };
        assert_eq!([LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace].map(lines), [0, 1, 1, 2]);
    }

    #[test]
    fn access_lines_have_a_switch_of_their_own() {
        let lines = |level, access| {
            logged(&Log { level, access, ..Log::default() }, false, |_| tracing::info!(target: ACCESS, "call")).len()
        };
        assert!(lines(LogLevel::Error, true) > 0);
        assert_eq!(lines(LogLevel::Trace, false), 0);
    }

    #[test]
    fn access_lines_can_be_switched_off_and_on_while_running() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(&Log { format, ..Log::default() }, false, |switch| {
                for access in [true, false, true] {
                    switch.set(&Log { format, access, ..Log::default() });
                    tracing::info!(target: ACCESS, access, "call");
                    tracing::info!(target: "trust_gateway", "other");
                }
            });
            assert_eq!((text.matches("call").count(), text.matches("other").count()), (2, 3), "{text}");
        }
    }

    #[test]
    fn a_log_with_holes_says_so_at_every_level() {
        for (level, format) in [(LogLevel::Error, LogFormat::Text), (LogLevel::Info, LogFormat::Json)] {
            let text = logged(&Log { level, format, access: false }, false, |_| tell_loss(3));
            assert!(text.contains("log lines were lost here") && text.contains("log.access"), "{text}");
            assert!(text.contains("lines=3") || text.contains("\"lines\":3"), "{text}");
        }
    }

    #[test]
    fn a_panic_is_one_line_with_its_place_and_message() {
        // Panics of other tests are told as ever.
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some("panics") { tell_panic(panic) } else { others(panic) }
        }));
        let panics = || {
            logged(&Log { level: LogLevel::Error, ..Log::default() }, false, |_| {
                std::panic::catch_unwind(|| panic!("two\n{}", "lines")).expect_err("it panics");
            })
        };
        let thread = std::thread::Builder::new().name("panics".to_owned()).spawn(panics).expect("a thread");
        let text = thread.join().expect("caught");
        assert!(
            text.contains("ERROR trust_gateway::panic: two\\nlines thread=\"panics\" place=src/telemetry.rs:"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    proptest! {
        #[test]
        fn only_printable_text_is_left(text in "[\\x00-\u{9f}]{0,16}[a-zäß日本🦀]{0,8}[\u{2028}\u{2029}\u{202e}]{0,3}") {
            let line = escaped(&text).into_owned() + "\n";
            prop_assert!(is_plain_line(&line), "{:?}", line);
        }

        #[test]
        fn printable_text_stays_as_it_is(text in "[ -~äß日本🦀\u{200d}]{0,32}") {
            prop_assert_eq!(escaped(&text), text.as_str());
        }
    }
}
