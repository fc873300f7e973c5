//! From what is configured of users, there and in a file, to those who may ask. No message has a password or a hash in it.

use std::{fs::File, io::Read, path::Path};

use crate::{
    config::types,
    policy::password::{self, FILE_BYTES_MAX, HINT, PasswordHash, USERS_MAX, User, Users, is_name},
};

/// The users of a policy, with those of its file as it is now.
///
/// # Errors
/// Everything that is wrong with them.
pub fn users(basic: &types::Basic) -> Result<Users, Vec<String>> {
    let mut faults = Vec::new();
    let mut all: Vec<User> = Vec::new();
    for (user, number) in basic.users.iter().zip(1..) {
        if !is_name(&user.name) {
            faults.push(format!(
                "user {number} of this policy is called what no one can show: a name is short, and has no colon or control character"
            ));
        } else if all.iter().any(|(name, _)| *name == user.name) {
            faults.push(format!("user {number} of this policy is called as one before"));
        }
        match PasswordHash::parse(&user.password.0) {
            Ok(hash) => all.push((user.name.clone(), hash)),
            Err(why) => faults.push(format!("the password of user {number} of this policy {why}: {HINT}")),
        }
    }
    match basic.file.as_ref().map_or(Ok(Vec::new()), |file| of_file(Path::new(file))) {
        Ok(users) => {
            let own: Vec<&String> = basic.users.iter().map(|user| &user.name).collect();
            let twice = users.iter().filter(|(name, _)| own.contains(&name)).count();
            if twice > 0 {
                let file = basic.file.as_deref().unwrap_or_default();
                faults.push(format!("{twice} users of {file} are among the policy's `users` too"));
            }
            all.extend(users);
        }
        Err(more) => faults.extend(more),
    }
    if all.len() > USERS_MAX {
        faults.push(format!("there are more than {USERS_MAX} users"));
    }
    if faults.is_empty() { Ok(Users::new(all)) } else { Err(faults) }
}

fn of_file(path: &Path) -> Result<Vec<User>, Vec<String>> {
    let name = path.display();
    let cannot = |error| vec![format!("{name} cannot be read: {error}")];
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(vec![format!("{name} has more than {} MiB", FILE_BYTES_MAX >> 20)]);
    }
    let told = |(line, fault)| format!("{name}:{line}: the line {fault}");
    password::parse_file(&bytes).map_err(|faults| faults.into_iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2b$04$vD3bmPSQMMQ.e4TsdZ86ve7cCUn73a6aH6x9W4xW1VdvOQhgQ1vhm";

    fn faults(text: &str) -> Vec<String> {
        users(&toml::from_str(text).unwrap()).err().unwrap_or_default()
    }

    #[test]
    fn every_fault_is_told_and_no_password() {
        assert!(faults(&format!("users = [{{ name = 'ada', password = '{HASH}' }}]")).is_empty());
        let told = faults(&format!(
            "file = '/nonexistent/users'\nusers = [{{ name = 'a:b', password = '{HASH}' }}, {{ name = 'c', password = 'hunter2' }}, \
             {{ name = 'a:b', password = '$apr1$x$hunter2' }}, {{ name = 'd', password = '{HASH}' }}, {{ name = 'd', password = '{HASH}' }}]"
        ));
        let parts = [
            "user 1 of this policy is called what no one",
            "the password of user 2 of this policy is no hash by bcrypt or argon2id: `htpasswd -nB NAME`",
            "user 3 of this policy is called what no one",
            "the password of user 3 of this policy is hashed by MD5 (apr1)",
            "user 5 of this policy is called as one before",
            "/nonexistent/users cannot be read: ",
        ];
        assert_eq!(told.len(), parts.len(), "{told:?}");
        for (told, part) in told.iter().zip(parts) {
            assert!(told.contains(part) && !told.contains("hunter2"), "{told}");
        }
    }
}
