"""What is imaged: films, flakes and crystals."""
