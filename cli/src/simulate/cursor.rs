//! Reading the calls in a template.

/// Where a mistake is, and what it is.
pub(super) type Mistake = (usize, String);

/// A place in a template's text, moved on by what is read.
pub(super) struct Cursor<'t> {
    pub(super) text: &'t str,
    pub(super) at: usize,
}

impl<'t> Cursor<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    /// Skips white space.
    pub(super) fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// A function's name, empty if there is none.
    pub(super) fn name(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A text in quotes, if one begins here.
    pub(super) fn quoted(&mut self) -> Result<Option<String>, Mistake> {
        let Some(quote) = self.rest().chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Ok(None);
        };
        let start = self.at;
        let body = &self.text[start + 1..];
        let Some(end) = body.find(quote) else {
            return Err((start, format!("the quote {quote} is not closed")));
        };
        self.at = start + 1 + end + 1;
        Ok(Some(body[..end].to_owned()))
    }

    /// The arguments in parentheses, if there are any.
    pub(super) fn arguments(&mut self) -> Result<Vec<String>, Mistake> {
        let mut arguments = Vec::new();
        let open = self.at;
        if !self.eat("(") || self.eat(")") {
            return Ok(arguments);
        }
        loop {
            self.space();
            let argument = match self.quoted()? {
                // Behind a quoted value a weight may follow.
                Some(quoted) => quoted + self.bare().trim_end(),
                None => self.bare().trim_end().to_owned(),
            };
            arguments.push(argument);
            if self.eat(")") {
                return Ok(arguments);
            }
            if !self.eat(",") {
                return Err((open, "the parenthesis is not closed; end it with )".to_owned()));
            }
        }
    }

    fn bare(&mut self) -> &'t str {
        let rest = self.rest();
        let end = rest.find([',', ')', '\n']).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// The closing braces; returns where they end.
    pub(super) fn close(&mut self) -> Result<usize, Mistake> {
        if self.eat("}}") {
            return Ok(self.at);
        }
        if self.rest().is_empty() {
            return Err((self.at, "the braces are not closed; end them with }}".to_owned()));
        }
        let found: String = self.rest().chars().take(12).collect();
        Err((self.at, format!("expected }}}} but found {found:?}")))
    }
}
