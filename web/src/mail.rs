//! Sending mail over SMTP.

use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Attachment, MultiPart, SinglePart, header::ContentType},
    transport::smtp::authentication::Credentials,
};

use crate::config::Config;

/// A finished mail with one attached PDF.
pub struct Mail {
    pub to: String,
    pub to_name: String,
    pub subject: String,
    /// Without angle brackets; the same mail always has the same one.
    pub message_id: String,
    pub text: String,
    pub html: String,
    pub pdf_name: String,
    pub pdf: Vec<u8>,
}

/// Sends and waits for the server's acceptance.
pub async fn send(config: &Config, mail: Mail) -> anyhow::Result<()> {
    let to = lettre::message::Mailbox::new(Some(mail.to_name), mail.to.parse()?);
    let message = Message::builder()
        .from(config.mail_from.parse()?)
        .to(to)
        .subject(mail.subject)
        .message_id(Some(format!("<{}>", mail.message_id)))
        .multipart(
            MultiPart::mixed()
                .multipart(MultiPart::alternative_plain_html(mail.text, mail.html))
                .singlepart(attachment(mail.pdf_name, mail.pdf)?),
        )?;
    transport(config)?.send(message).await?;
    Ok(())
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
    let builder = builder.port(config.smtp_port).timeout(Some(std::time::Duration::from_secs(30)));
    let builder = if config.smtp_user.is_empty() {
        builder
    } else {
        builder.credentials(Credentials::new(config.smtp_user.clone(), config.smtp_password.clone()))
    };
    Ok(builder.build())
}
