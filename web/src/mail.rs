//! Sending mail over SMTP.

use anyhow::Context;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Attachment, MultiPart, SinglePart, header::ContentType},
    transport::smtp::{authentication::Credentials, extension::ClientId},
};

use crate::config::Config;

/// A finished mail with one attached PDF.
pub struct Mail {
    pub to: String,
    pub to_name: String,
    pub subject: String,
    /// Without angle brackets. The same mail always has the same one.
    pub message_id: String,
    pub text: String,
    pub html: String,
    pub pdf_name: String,
    pub pdf: Vec<u8>,
}

/// The reason why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The mailbox does not exist or refuses us, and will do so again.
    #[error("the mail was refused: {0}")]
    Refused(String),
    #[error("{0:#}")]
    Later(#[from] anyhow::Error),
}

/// Sends and waits for the server's acceptance.
pub async fn send(config: &Config, mail: Mail) -> Result<(), MailError> {
    let address = mail
        .to
        .parse()
        .map_err(|error| MailError::Refused(format!("{} cannot be mailed: {error}", mail.to)))?;
    let to = lettre::message::Mailbox::new(Some(mail.to_name), address);
    let from = config.mail_from.parse().context("mail_from")?;
    let message = Message::builder()
        .from(from)
        .to(to)
        .subject(mail.subject)
        .message_id(Some(format!("<{}>", mail.message_id)))
        .multipart(
            MultiPart::mixed()
                .multipart(MultiPart::alternative_plain_html(mail.text, mail.html))
                .singlepart(attachment(mail.pdf_name, mail.pdf)?),
        )
        .context("building the mail")?;
    match transport(config)?.send(message).await {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(refusal(&error).map_or_else(|| MailError::Later(error.into()), MailError::Refused))
        }
    }
}

/// Codes that mean that a mailbox does not exist or does not accept mail (RFC 5321 4.2.3, RFC
/// 7504). The other 5xx codes are about us: a wrong password, a sender that may not relay.
const MAILBOX_REFUSED: [&str; 7] = ["501", "513", "521", "550", "551", "553", "556"];

/// The server's answer, if it is final and about the mailbox.
fn refusal(error: &lettre::transport::smtp::Error) -> Option<String> {
    let code = error.status().filter(|_| error.is_permanent())?.to_string();
    MAILBOX_REFUSED
        .contains(&code.as_str())
        .then(|| error.to_string())
}

fn attachment(name: String, bytes: Vec<u8>) -> anyhow::Result<SinglePart> {
    Ok(Attachment::new(name).body(bytes, ContentType::parse("application/pdf")?))
}

fn transport(config: &Config) -> anyhow::Result<AsyncSmtpTransport<Tokio1Executor>> {
    type Smtp = AsyncSmtpTransport<Tokio1Executor>;
    let builder = match config.smtp_security.as_str() {
        "tls" => Smtp::relay(&config.smtp_host)?,
        "starttls" => Smtp::starttls_relay(&config.smtp_host)?,
        _ => Smtp::builder_dangerous(&config.smtp_host),
    };
    let builder = match config.smtp_hello() {
        Some(name) => builder.hello_name(ClientId::Domain(name)),
        None => builder,
    };
    let builder = builder
        .port(config.smtp_port)
        .timeout(Some(std::time::Duration::from_secs(30)));
    let builder = if config.smtp_user.is_empty() {
        builder
    } else {
        builder.credentials(Credentials::new(
            config.smtp_user.clone(),
            config.smtp_password.clone(),
        ))
    };
    Ok(builder.build())
}
