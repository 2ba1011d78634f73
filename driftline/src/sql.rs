//! `driftline sql`: statements over the lake, from the command line, a file, or a prompt.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use driftline_lake::Lake;
use driftline_queries::{Format, Session, answer};

use crate::config::Config;
use crate::output::OutputFormat;

/// How often `--follow` asks again.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);

/// Arguments of `driftline sql`.
#[derive(Debug, clap::Args)]
pub(crate) struct SqlArgs {
    /// A statement; without it and --file a prompt opens.
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    command: Option<String>,
    /// A file with statements, separated by semicolons.
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "command")]
    file: Option<PathBuf>,
    /// Ask again when the lake has changed, until interrupted.
    #[arg(long, requires = "command")]
    follow: bool,
}

/// Runs it.
///
/// # Errors
/// When the lake cannot be read or a statement is wrong.
pub(crate) async fn run(
    config: &Config,
    dir: &Path,
    args: SqlArgs,
    format: OutputFormat,
) -> anyhow::Result<()> {
    let lake = Lake::new(&config.lake(dir));
    let mut session = Session::open(lake).await?;
    let format = match format {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
        OutputFormat::Csv => Format::Csv,
    };
    let text = match (&args.command, &args.file) {
        (Some(command), _) => command.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("file {}", file.display()))?
        }
        (None, None) => return prompt(&mut session, format).await,
    };
    if args.follow {
        return follow(&mut session, &text, format).await;
    }
    for statement in statements(&text) {
        print(&session, &statement, format).await?;
    }
    Ok(())
}

/// Statements of a text: parted at semicolons outside of quotes.
fn statements(text: &str) -> Vec<String> {
    let mut statements = vec![String::new()];
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (None, ';') => {
                statements.push(String::new());
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        if let Some(last) = statements.last_mut() {
            last.push(c);
        }
    }
    statements.retain(|statement| !statement.trim().is_empty());
    statements
}

async fn print(session: &Session, sql: &str, format: Format) -> anyhow::Result<()> {
    let batches = session.run(sql).await?;
    answer::write(&batches, format, &mut std::io::stdout().lock())?;
    Ok(())
}

async fn follow(session: &mut Session, sql: &str, format: Format) -> anyhow::Result<()> {
    let mut before = Vec::new();
    let mut every = tokio::time::interval(FOLLOW_EVERY);
    loop {
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
            _ = every.tick() => {}
        }
        session.refresh().await?;
        let mut now = Vec::new();
        answer::write(&session.run(sql).await?, format, &mut now)?;
        if now != before {
            std::io::Write::write_all(&mut std::io::stdout().lock(), &now)?;
            before = now;
        }
    }
}

async fn prompt(session: &mut Session, format: Format) -> anyhow::Result<()> {
    let mut editor = rustyline::DefaultEditor::new()?;
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() {
            "driftline> "
        } else {
            "       ..> "
        };
        // The editor blocks; nothing else runs on this thread meanwhile.
        let line = tokio::task::block_in_place(|| editor.readline(prompt));
        match line {
            Ok(line) => {
                let word = line.trim();
                if text.is_empty() && matches!(word, "exit" | "quit" | "\\q") {
                    return Ok(());
                }
                text.push_str(&line);
                text.push('\n');
                if !word.ends_with(';') {
                    continue;
                }
                // The history is a convenience.
                let _ = editor.add_history_entry(text.trim());
                session.refresh().await?;
                for statement in statements(&std::mem::take(&mut text)) {
                    if let Err(error) = print(session, &statement, format).await {
                        eprintln!("error: {error:#}");
                    }
                }
            }
            Err(rustyline::error::ReadlineError::Interrupted) => text.clear(),
            Err(rustyline::error::ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_quotes_part_nothing() {
        assert_eq!(
            statements("SELECT ';' ; SELECT 2;\n"),
            ["SELECT ';' ", " SELECT 2"]
        );
    }
}
