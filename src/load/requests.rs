//! Plain requests over connections that are kept.

use std::time::{Duration, Instant};

use super::swarm::Heard;
use super::{Load, LoadError, PATIENCE, Report, Samples, server};

/// Requests before the measured period.
const WARM_UP: Duration = Duration::from_secs(1);

impl Load<'_> {
    pub(super) fn requests(
        &mut self,
        path: &str,
        authorized: bool,
        connections: usize,
        period: Duration,
    ) -> Result<Report, LoadError> {
        let authorization = if authorized {
            format!("Authorization: Bearer {}\r\n", self.token(0)?)
        } else {
            String::new()
        };
        let host = self.swarm.host();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}\r\n").into_bytes();
        let mut sent = Vec::new();
        for _ in 0..connections {
            let number = self.swarm.connect(&request)?;
            sent.resize(sent.len().max(number + 1), Instant::now());
        }
        let (start, mut opened) = (Instant::now(), None);
        let (mut units, mut samples, mut failure) = (0_u64, Samples::default(), None);
        loop {
            let now = Instant::now();
            if opened.is_none() && now >= start + WARM_UP {
                (units, samples) = (0, Samples::default());
                opened = Some((now, self.cpu()?));
            }
            if opened.is_some_and(|(begin, _)| now >= begin + period) {
                break;
            }
            if units == 0 && now > start + PATIENCE {
                return Err(server("did not answer"));
            }
            self.swarm.turn(
                Duration::from_millis(10),
                |number, client, heard| match heard {
                    Heard::Response { status: 200, .. } => {
                        units += 1;
                        samples.push(sent[number].elapsed());
                        sent[number] = Instant::now();
                        client.send(&request);
                    }
                    other => failure = Some(format!("{other:?}")),
                },
            )?;
            if let Some(failure) = failure {
                return Err(server(format!("answered {path} with {failure}")));
            }
        }
        let (begin, cpu) = opened.ok_or_else(|| server("was measured for no time"))?;
        Ok(Report {
            seconds: begin.elapsed().as_secs_f64(),
            units,
            cpu: self.cpu_since(cpu)?,
            samples,
            ..Report::default()
        })
    }
}
