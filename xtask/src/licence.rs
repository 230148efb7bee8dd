//! Licence expressions, as far as package manifests use them: SPDX identifiers joined by `AND`, `OR`, `WITH` and
//! parentheses, and the old `/` for `OR`.

use anyhow::{Result, bail};

/// Whether `expression` can be met with the licences in `allowed` alone. `A WITH B` is one licence of that full name.
/// Fails when the expression cannot be read, which counts as not allowed.
pub(crate) fn is_met(expression: &str, allowed: &[String]) -> Result<bool> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, allowed };
    let met = parser.any()?;
    match parser.words {
        [] => Ok(met),
        [word, ..] => bail!("licence expression {expression:?}: {word:?} is out of place"),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn accept(&mut self, word: &str) -> bool {
        match self.words {
            [first, rest @ ..] if *first == word => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    /// `all OR all …`: the choice is ours.
    fn any(&mut self) -> Result<bool> {
        let mut met = self.all()?;
        while self.accept("OR") {
            met |= self.all()?;
        }
        Ok(met)
    }

    /// `one AND one …`: all bind us.
    fn all(&mut self) -> Result<bool> {
        let mut met = self.one()?;
        while self.accept("AND") {
            met &= self.one()?;
        }
        Ok(met)
    }

    fn one(&mut self) -> Result<bool> {
        if self.accept("(") {
            let met = self.any()?;
            if !self.accept(")") {
                bail!("a licence expression lacks its closing parenthesis");
            }
            return Ok(met);
        }
        let [id, rest @ ..] = self.words else { bail!("a licence expression ends too early") };
        if ["AND", "OR", "WITH", ")"].contains(id) {
            bail!("{id:?} stands where a licence should");
        }
        self.words = rest;
        let mut name = (*id).to_owned();
        if self.accept("WITH") {
            let [exception, rest @ ..] = self.words else { bail!("a licence expression ends after WITH") };
            name = format!("{name} WITH {exception}");
            self.words = rest;
        }
        Ok(self.allowed.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> Result<bool> {
        is_met(expression, &["MIT".to_owned(), "ISC".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()])
    }

    #[test]
    fn allowed_expressions_are_met() {
        for expression in
            ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "ISC AND (GPL-2.0 OR MIT)", "Apache-2.0 WITH LLVM-exception"]
        {
            assert!(met(expression).unwrap(), "{expression}");
        }
    }

    #[test]
    fn other_expressions_are_not() {
        // AND binds closer than OR: the second choice of the last one needs both.
        for expression in ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0", "MIT WITH other", "GPL-2.0 OR MIT AND GPL-3.0"] {
            assert!(!met(expression).unwrap(), "{expression}");
        }
    }

    #[test]
    fn broken_expressions_are_refused() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "MIT ISC", "AND MIT", "MIT WITH"] {
            assert!(met(expression).is_err(), "{expression}");
        }
    }
}
